package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// signalTestEnv is the environment variable that makes the test binary send signals to itself.
// Its value is how long further signals count as the first one.
const signalTestEnv = "CLI_TEST_SIGNALS_SAME"

func TestSignalsIgnoreImmediateRepeat(t *testing.T) {
	if same, err := time.ParseDuration(os.Getenv(signalTestEnv)); err == nil {
		runSignalTarget(same)
	}
	for same, want := range map[string]string{
		"1h":  "cleaned up",
		"1ns": "",
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), signalTestEnv+"="+same)
		out, err := cmd.Output()
		var ended *exec.ExitError
		switch {
		case string(out) != want:
			t.Errorf("further signals within %s: it prints %q and exits with %v; want %q", same, out, err, want)
		case want == "" && (!errors.As(err, &ended) || !ended.Sys().(syscall.WaitStatus).Signaled()):
			t.Errorf("further signals after %s: it ends with %v, want an end by the signal", same, err)
		}
	}
	if repeatedSignalWindow != time.Second {
		t.Errorf("repeatedSignalWindow is %v", repeatedSignalWindow)
	}
}

// runSignalTarget is a program that receives further signals while it cleans up: a thousand that
// count as the first one, or as many as it takes to end it.
func runSignalTarget(same time.Duration) {
	ctx := signals(same)
	for sent := 0; ; sent++ {
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-ctx.Done()
		switch {
		case same < time.Minute:
			time.Sleep(time.Millisecond) // a flood of signals crashes the runtime instead of ending it
		case sent > 1000:
			fmt.Print("cleaned up")
			os.Exit(0)
		}
	}
}

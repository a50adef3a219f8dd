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

// sending is the variable that has the test's own binary send itself signals: how long others
// are taken for the first one.
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
			t.Errorf("others within %s are the same: it prints %q and ends with %v; want %q", same, out, err, want)
		case want == "" && (!errors.As(err, &ended) || !ended.Sys().(syscall.WaitStatus).Signaled()):
			t.Errorf("others after %s: it ends with %v, want by the signal", same, err)
		}
	}
	if repeatedSignalWindow != time.Second {
		t.Errorf("signals within %v are the same", repeatedSignalWindow)
	}
}

// sendMany is a program that is sent a signal, and others while it cleans up: a thousand that are
// the same, or as many as it takes to end it.
func runSignalTarget(same time.Duration) {
	ctx := signals(same)
	for sent := 0; ; sent++ {
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-ctx.Done()
		switch {
		case same < time.Minute:
			time.Sleep(time.Millisecond) // a flood of them makes the runtime crash, instead of end
		case sent > 1000:
			fmt.Print("cleaned up")
			os.Exit(0)
		}
	}
}

package kube

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const dockerfile = root + "/deploy/Dockerfile"

// buildAsImage builds the program with the command in the Dockerfile.
func buildAsImage(to string) error {
	b, err := os.ReadFile(dockerfile)
	if err != nil {
		return err
	}
	command := regexp.MustCompile(`(?m)^RUN (.* go build .*) -o /metrics (.*)$`).FindStringSubmatch(string(b))
	if command == nil {
		return fmt.Errorf("%s: no RUN … go build … -o /metrics … in it", dockerfile)
	}
	sh := exec.Command("sh", "-c", command[1]+" -o '"+to+"' "+command[2])
	sh.Dir = root
	sh.Env = append(os.Environ(), "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH)
	if out, err := sh.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", sh, err, out)
	}
	return nil
}

func TestImageUsesGoOfGoMod(t *testing.T) {
	version := regexp.MustCompile(`(?m)^go (.*)$`).FindStringSubmatch(read(t, root+"/go.mod"))[1]
	if want := " golang:" + version + " AS build\n"; !strings.Contains(read(t, dockerfile), want) {
		t.Errorf("%s: want%q in it", dockerfile, want)
	}
}

func TestImageProgramIsStaticAndStripped(t *testing.T) {
	f, err := elf.Open(metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("has a segment %s: it is linked dynamically", p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("has symbols: it is not stripped")
	}
}

// The root file system contains only the program. The user, who is the one in the
// Dockerfile, has no privileges and cannot write anywhere.
func TestImageProgramServesFromAnEmptyRoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, "/metrics", "--host=127.0.0.1", "--metrics-port=0")
	run.Dir, run.Env = "/", []string{}
	uid, gid := user(t)
	run.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER, // so that the test does not need root
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getgid(), Size: 1}},
		Chroot:      emptyRoot(t),
		Pdeathsig:   syscall.SIGKILL,
	}
	stderr, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	url := regexp.MustCompile(`started at ([0-9.:]+)/metrics`)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		logged.WriteString(lines.Text() + "\n")
		if found := url.FindStringSubmatch(lines.Text()); found != nil {
			if err := healthy("http://" + found[1]); err != nil {
				t.Error(err)
			}
			if err := run.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	if err := run.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &logged)
	}
}

// emptyRoot returns a read-only directory that contains only the program.
func emptyRoot(t *testing.T) string {
	t.Helper()
	dir := filepath.Dir(metrics)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o755) }) // so that the directory can be removed at the end
	return dir
}

// user returns the user in the Dockerfile.
func user(t *testing.T) (uid, gid int) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^USER .*$`).FindString(read(t, dockerfile))
	if _, err := fmt.Sscanf(line, "USER %d:%d", &uid, &gid); err != nil || uid == 0 || gid == 0 {
		t.Fatalf("%s: %q: want USER uid:gid in numbers, with which runAsNonRoot can check that they are not root's", dockerfile, line)
	}
	return uid, gid
}

func healthy(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(url + "/-/healthy")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/-/healthy: %s", answer.Status)
	}
	return nil
}

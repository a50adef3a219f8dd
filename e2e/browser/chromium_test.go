//go:build real

package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// chromium is a running browser, which is controlled by the DevTools protocol over two pipes:
// JSON messages, each followed by a zero byte.
type chromium struct {
	out *os.File

	mu      sync.Mutex
	sent    int
	pending map[int]chan message
	tabs    map[string]*tab // by session
	ended   error           // why no more calls are answered
}

// message is a call, its reply, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// startChromium starts a browser with a profile of its own. It is stopped at the end of the test.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	path := process.Installed(t, "chromium", "chromium")
	childIn, parentOut := pipe(t)
	parentIn, childOut := pipe(t)
	cmd := exec.Command(path, "--headless=new", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(),
		"--no-sandbox", // the sandbox does not work as root, and only our own page is opened
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb", "about:blank")
	cmd.ExtraFiles = []*os.File{childIn, childOut} // Chromium reads from descriptor 3 and writes to 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	childIn.Close()
	childOut.Close()
	c := &chromium{out: parentOut, pending: make(map[int]chan message), tabs: make(map[string]*tab)}
	var reader sync.WaitGroup
	reader.Go(func() { c.readLoop(parentIn) })
	t.Cleanup(func() {
		parentOut.Close() // Chromium exits then
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		parentIn.Close()
		reader.Wait()
	})
	return c
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// readLoop delivers replies and events until the browser has exited.
func (c *chromium) readLoop(from *os.File) {
	in := bufio.NewReaderSize(from, 1<<20)
	for {
		b, err := in.ReadBytes(0)
		if err != nil {
			c.fail(fmt.Errorf("chromium has exited: %w", err))
			return
		}
		var m message
		if err := json.Unmarshal(b[:len(b)-1], &m); err != nil {
			c.fail(fmt.Errorf("decode chromium's message %.200q: %w", b, err))
			return
		}
		c.mu.Lock()
		answer, t := c.pending[m.ID], c.tabs[m.Session]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case t != nil:
			t.handleEvent(m)
		}
	}
}

func (c *chromium) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = err
	for id, answer := range c.pending {
		delete(c.pending, id)
		close(answer)
	}
}

// call calls a method of the browser or, with a session, of a tab.
func (c *chromium) call(session, method string, params, result any) error {
	p, err := json.Marshal(params)
	if err != nil {
		return err
	}
	answer := make(chan message, 1)
	c.mu.Lock()
	if c.ended != nil {
		defer c.mu.Unlock()
		return c.ended
	}
	c.sent++
	c.pending[c.sent] = answer
	b, err := json.Marshal(message{ID: c.sent, Session: session, Method: method, Params: p})
	if err == nil {
		_, err = c.out.Write(append(b, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return errors.New("chromium has exited")
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-time.After(testutil.WaitTimeout):
		return fmt.Errorf("no reply after %v", testutil.WaitTimeout)
	}
}

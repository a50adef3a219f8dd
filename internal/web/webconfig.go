package web

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// WebConfig is what an exporter-toolkit file demands of clients: TLS, certificates and
// passwords. The toolkit reads its file for every request, and lets every client in while
// nothing stands there; here it is read whole, with the files that it names, and taken over
// once it has come to rest. One that cannot be used, or demands less than the last one, changes
// nothing.
type WebConfig struct {
	path     string
	last     *requirements                // what was read last, of the files as they were then
	modified string                       // when these were changed last
	current  atomic.Pointer[requirements] // what is in force
	problem  atomic.Pointer[string]       // with the file as it is; nil: nothing
}

const (
	// lookEvery is how often the files are read.
	readInterval = 200 * time.Millisecond

	// A configuration is taken over when it was read so many times in a row. One that cannot be
	// used is reported when its files have been the same so often: they may be being written.
	readsToUse, readsToReport = 2, 5

	// maxWebFile bounds, in bytes, what is read of each file.
	maxWebFile = 1 << 20
)

// ReadWebConfig reads an exporter-toolkit file. Without a path nothing is demanded, and it is
// nil. Its errors show no value of the file.
func ReadWebConfig(path string) (*WebConfig, error) {
	if path == "" {
		return nil, nil
	}
	c := &WebConfig{path: path}
	d, err := c.read()
	if err != nil || d.empty() {
		time.Sleep(readInterval) // it may be being written
		d, err = c.read()
	}
	if err != nil {
		return nil, err
	}
	c.current.Store(d)
	return c, nil
}

// Path is the file.
func (c *WebConfig) Path() string { return c.path }

// Wrong is what is wrong with the file as it is now, so that what it said before is still in
// force; empty if nothing is, or there is no file.
func (c *WebConfig) Problem() string {
	if c == nil {
		return ""
	}
	if why := c.problem.Load(); why != nil {
		return *why
	}
	return ""
}

// watch takes over what the files have become, until ctx ends.
func (c *WebConfig) watch(ctx context.Context, log *slog.Logger) {
	if c.current.Load().empty() {
		log.Warn("The web configuration demands neither TLS nor a password: every client that can reach this port is answered", "file", c.path)
	}
	ticker := time.NewTicker(readInterval)
	defer ticker.Stop()
	last, same := "", 0
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		d, err := c.read()
		if err == nil {
			err = d.checkNotWeaker(c.current.Load())
		}
		is := c.modified
		if err == nil {
			is = d.text
		}
		if same++; is != last {
			last, same = is, 1
		}
		c.evaluate(d, err, same, log)
	}
}

// judge takes over what was read, or says that it is of no use, once that is certain.
func (c *WebConfig) evaluate(d *requirements, err error, same int, log *slog.Logger) {
	switch now := c.current.Load(); {
	case err != nil && same == readsToReport:
		why := err.Error()
		c.problem.Store(&why)
		log.Warn("The web configuration cannot be used as it is; the last one stays in force until it can, or a restart", "file", c.path, "error", err)
	case err != nil || same != readsToUse:
	case d.text == now.text:
		if c.problem.Swap(nil) != nil {
			log.Info("The web configuration is what is in force again", "file", c.path)
		}
	default:
		d.inherit(now)
		c.current.Store(d)
		c.problem.Store(nil)
		if d.access != now.access {
			now.replace()
		}
		log.Info("Took over the web configuration", "file", c.path)
	}
}

// read reads the file and those that it names.
func (c *WebConfig) read() (*requirements, error) {
	c.modified = ""
	text, err := c.readFile(c.path)
	if err != nil {
		return nil, err
	}
	config, err := parseWebConfig(text, filepath.Dir(c.path))
	if err != nil {
		return nil, hideValues(err)
	}
	whole := sha256.New()
	whole.Write(text)
	for _, f := range []struct {
		name       string
		path, text *string
	}{
		{"cert_file", &config.TLSConfig.TLSCertPath, &config.TLSConfig.TLSCert},
		{"key_file", &config.TLSConfig.TLSKeyPath, (*string)(&config.TLSConfig.TLSKey)},
		{"client_ca_file", &config.TLSConfig.ClientCAs, &config.TLSConfig.ClientCAsText},
	} {
		if *f.path == "" {
			continue
		}
		b, err := c.readFile(*f.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		*f.path, *f.text = "", string(b)
		fmt.Fprintf(whole, "\n%s %d\n%s", f.name, len(b), b)
	}
	sum := string(whole.Sum(nil))
	if c.last != nil && c.last.text == sum {
		return c.last, nil
	}
	d, err := newRequirements(config)
	if err != nil {
		return nil, hideValues(err)
	}
	d.text = sum
	c.last = d
	return d, nil
}

// readFile reads a file whole. One that would have us wait, as a pipe, is no use: it is read
// again and again.
func (c *WebConfig) readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		c.modified += err.Error()
		return nil, err
	}
	c.modified += fmt.Sprintln(path, info.Size(), info.ModTime())
	if info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		return nil, fmt.Errorf("%s is a pipe: want a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxWebFile+1))
	if err == nil && len(b) > maxWebFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxWebFile)
	}
	return b, err
}

// quoted is a value that the YAML package quotes in an error.
var quoted = regexp.MustCompile("`[^`]*`")

// hideValues is an error in one line, without the file's own values: one of them may be a
// password in the wrong place.
func hideValues(err error) error {
	return errors.New(quoted.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "…"))
}

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

// Config holds what an exporter-toolkit file requires of clients: TLS, certificates and
// passwords. The toolkit itself reads the file for every request, and admits every client while
// the file is empty. Config reads the file and the files that it names as a whole, and uses
// them once they have stopped changing. A file that is invalid, or requires less than the one
// before, changes nothing.
type Config struct {
	path     string
	last     *requirements // as last read from valid files
	modified string        // sizes and modification times of the files, as last read
	current  atomic.Pointer[requirements]
	problem  atomic.Pointer[string] // what is wrong with the present files; nil if nothing is
}

const (
	// readInterval is how often the files are read.
	readInterval = 200 * time.Millisecond

	// A configuration is used after readsToUse equal reads in a row. An invalid one is reported
	// after readsToReport reads of unchanged files, because they may be only partly written.
	readsToUse, readsToReport = 2, 5

	// maxWebFile is how many bytes each of the files may have.
	maxWebFile = 1 << 20
)

// ReadConfig reads an exporter-toolkit file. Without a path it returns nil: there are no
// requirements. Its errors contain no value from the file.
func ReadConfig(path string) (*Config, error) {
	if path == "" {
		return nil, nil
	}
	c := &Config{path: path}
	r, err := c.read()
	if err != nil || r.empty() {
		time.Sleep(readInterval) // the file may be only partly written
		r, err = c.read()
	}
	if err != nil {
		return nil, err
	}
	c.current.Store(r)
	return c, nil
}

// Path returns the path of the file.
func (c *Config) Path() string { return c.path }

// Problem returns why the present file is not used, while an earlier version is still in force. It
// returns nothing if the file is in force, or if there is no file.
func (c *Config) Problem() string {
	if c == nil {
		return ""
	}
	if why := c.problem.Load(); why != nil {
		return *why
	}
	return ""
}

// watch reads the files and applies their changes until ctx ends.
func (c *Config) watch(ctx context.Context, log *slog.Logger) {
	if c.current.Load().empty() {
		log.Warn("The web configuration requires neither TLS nor a password: every client that can reach this port has access", "file", c.path)
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
		r, err := c.read()
		if err == nil {
			err = r.checkNotWeaker(c.current.Load())
		}
		version := c.modified
		if err == nil {
			version = r.hash
		}
		if same++; version != last {
			last, same = version, 1
		}
		c.evaluate(r, err, same, log)
	}
}

// evaluate applies what was read, or reports that it cannot be used, once the files are stable.
func (c *Config) evaluate(r *requirements, err error, same int, log *slog.Logger) {
	switch now := c.current.Load(); {
	case err != nil && same == readsToReport:
		why := err.Error()
		c.problem.Store(&why)
		log.Warn("The web configuration cannot be used; the previous one stays in force until the file is valid or the program restarts", "file", c.path, "error", err)
	case err != nil || same != readsToUse:
	case r.hash == now.hash:
		if c.problem.Swap(nil) != nil {
			log.Info("The web configuration file matches the configuration in force again", "file", c.path)
		}
	default:
		r.inherit(now)
		c.current.Store(r)
		c.problem.Store(nil)
		if r.access != now.access {
			now.replace()
		}
		log.Info("Loaded the changed web configuration", "file", c.path)
	}
}

// read reads the file and those that it names.
func (c *Config) read() (*requirements, error) {
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
	if c.last != nil && c.last.hash == sum {
		return c.last, nil
	}
	r, err := newRequirements(config)
	if err != nil {
		return nil, hideValues(err)
	}
	r.hash = sum
	c.last = r
	return r, nil
}

// readFile reads a whole file. It refuses a pipe or a socket: a read of one would block, and files
// are read repeatedly.
func (c *Config) readFile(path string) ([]byte, error) {
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

// quoted matches a value that the YAML package quotes in an error.
var quoted = regexp.MustCompile("`[^`]*`")

// hideValues returns the error on one line, without values from the file, because a password may be
// in the wrong place.
func hideValues(err error) error {
	return errors.New(quoted.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "…"))
}

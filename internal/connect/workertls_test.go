package connect

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestWorkerTLSReadsFilesEachTime(t *testing.T) {
	a := testutil.NewAuthorityWithCertificates(t)
	files := WorkerTLS{a.File("ca.crt"), a.File("client.crt"), a.File("client.key")}
	if c, err := files.Config(); err != nil || c.RootCAs == nil || len(c.Certificates) != 1 || c.InsecureSkipVerify {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := (WorkerTLS{}).Config(); err != nil || c.RootCAs != nil || len(c.Certificates) != 0 || c.InsecureSkipVerify {
		t.Errorf("without files: got %+v, %v", c, err)
	}
	if err := os.Remove(a.File("client.key")); err != nil {
		t.Fatal(err)
	}
	want := "--worker-tls-cert, --worker-tls-key: open " + a.File("client.key")
	if _, err := files.Config(); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("when a file is missing: got %v, want %s", err, want)
	}
}

func TestWorkerTLSNamesUnusableFiles(t *testing.T) {
	a := testutil.NewAuthorityWithCertificates(t)
	cert, key, missing := a.File("client.crt"), a.File("client.key"), a.File("missing")
	for _, c := range []struct {
		files WorkerTLS
		want  string
	}{
		{WorkerTLS{CA: missing}, "--worker-tls-ca: open " + missing + ": no such file or directory"},
		{WorkerTLS{CA: key}, "--worker-tls-ca: " + key + " holds no certificate: want PEM"},
		{WorkerTLS{Cert: missing, Key: key}, "--worker-tls-cert, --worker-tls-key: open " + missing + ": no such file or directory"},
		{WorkerTLS{Cert: cert, Key: a.File("ca.key")}, "--worker-tls-cert, --worker-tls-key: want a certificate in " + cert + " and its key in " + a.File("ca.key") + ", both PEM: "},
	} {
		_, err := c.files.Config()
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: got %v, want %s", c.files, err, c.want)
		}
	}
	for _, c := range []struct {
		files WorkerTLS
		want  string
		given string
	}{
		{WorkerTLS{Cert: "c"}, `--worker-tls-cert "c": needs --worker-tls-key, the file with its key`, "--worker-tls-cert"},
		{WorkerTLS{CA: "a", Key: "k"}, `--worker-tls-key "k": needs --worker-tls-cert, the file with its certificate`, "--worker-tls-ca"},
		{WorkerTLS{}, "", ""},
		{WorkerTLS{CA: "a"}, "", "--worker-tls-ca"},
		{WorkerTLS{"a", "c", "k"}, "", "--worker-tls-ca"},
	} {
		got := ""
		if err := c.files.Check(); err != nil {
			got = err.Error()
		}
		if got != c.want || c.files.FirstFlag() != c.given {
			t.Errorf("%+v: got %q and %q, want %q and %q", c.files, got, c.files.FirstFlag(), c.want, c.given)
		}
	}
}

func TestWorkerTLSErrorHasHint(t *testing.T) {
	for _, c := range []struct {
		err      error
		rejected bool
		want     string
	}{
		{errors.New("remote error: tls: bad certificate"), false, " (--worker-tls-cert and --worker-tls-key identify this program)"},
		{errors.New("EOF"), true, " (--worker-tls-cert and --worker-tls-key identify this program)"},
		{errors.New("EOF"), false, ""},
		{x509.HostnameError{Certificate: new(x509.Certificate), Host: "h"}, false, " (the certificate must have the host of --worker-metrics-url in it)"},
	} {
		got := WorkerTLSError(c.err, c.rejected)
		if got.Error() != c.err.Error()+c.want || !errors.Is(got, c.err) && c.want != "" && !strings.Contains(c.want, "host") {
			t.Errorf("%v, rejected %v: got %v, want %s at the end", c.err, c.rejected, got, c.want)
		}
	}
}

//go:build real

package real

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// kubernetesAPI is Kubernetes' own API machinery: an apiextensions-apiserver that uses
// Debian's etcd. testdata/crds defines all of its resources.
type kubernetesAPI struct {
	t         *testing.T
	etcd      *clientv3.Client // the etcd of the API server
	authority *testutil.Authority
	command   []string
	running   *process.Process
	url       string
	http      *http.Client // uses an administrator's certificate
	proxy     *kubectlProxy
}

// collections has the path, version and kind of each resource.
var collections = map[string]struct{ path, version, kind string }{
	kubetest.WorkerMetadata: {"/apis/nvidia.com/v1alpha1/namespaces/%s/dynamoworkermetadatas", "nvidia.com/v1alpha1", "DynamoWorkerMetadata"},
	kubetest.EndpointSlices: {"/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"},
	kubetest.Leases:         {"/apis/coordination.k8s.io/v1/namespaces/%s/leases", "coordination.k8s.io/v1", "Lease"},
}

const definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"

// startRealKubernetes starts an API server without workers. Workers connect to it with a
// certificate, and the program through a stand-in for kubectl proxy. flags are for etcd.
func (s *servers) startRealKubernetes(flags ...string) *kubernetesAPI {
	s.t.Helper()
	path := filepath.Join(process.Cache(s.t), "bin", "apiextensions-apiserver")
	if _, err := os.Stat(path); err != nil {
		s.t.Fatalf("%s does not exist: .ci/nightly-kubernetes builds it", path)
	}
	store := &servers{t: s.t, etcdFlags: flags}
	store.startEtcd()
	address := process.FreeAddress(s.t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		s.t.Fatal(err)
	}
	authority := testutil.NewAuthorityWithCertificates(s.t)
	admin := certificate(s.t, authority)
	k := &kubernetesAPI{
		t: s.t, etcd: store.etcd, url: "https://" + address, authority: authority,
		http: &http.Client{Transport: transportWith(s.t, authority, admin)},
	}
	config := kubeconfig(s.t, kubetest.Object{"server": k.url, "certificate-authority": authority.File("ca.crt")},
		kubetest.Object{"client-certificate": authority.File("admin.crt"), "client-key": authority.File("admin.key")})
	k.command = []string{path,
		"--etcd-servers", store.etcdURL, "--bind-address", host, "--secure-port", port,
		"--tls-cert-file", authority.File("server.crt"), "--tls-private-key-file", authority.File("server.key"), "--client-ca-file", authority.File("ca.crt"),
		// There is no core API server that could answer requests about namespaces,
		// webhooks, policies and permissions. This one permits everything to
		// administrators.
		"--authentication-skip-lookup", "--authentication-kubeconfig", config, "--authorization-kubeconfig", config, "--kubeconfig", config,
		"--enable-priority-and-fairness=false", "--disable-admission-plugins",
		"NamespaceLifecycle,MutatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionPolicy,ValidatingAdmissionWebhook",
	}
	k.start()
	k.define()
	k.proxy = newKubectlProxy(s.t, k.url, k.http.Transport)
	s.kube = &cluster{k, k.proxy.web.URL, config}
	return k
}

// certificate returns an administrator's certificate from an authority.
func certificate(t *testing.T, authority *testutil.Authority) tls.Certificate {
	t.Helper()
	authority.Issue("admin", &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	pair, err := tls.LoadX509KeyPair(authority.File("admin.crt"), authority.File("admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// transportWith returns a transport that trusts an authority and uses this certificate.
func transportWith(t *testing.T, authority *testutil.Authority, own tls.Certificate) *http.Transport {
	t.Helper()
	ca, err := os.ReadFile(authority.File("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}}
}

// start starts the API server, also after kill.
func (k *kubernetesAPI) start() {
	k.t.Helper()
	k.running = process.Start(k.t, nil, k.command[0], k.command[1:]...)
	testutil.Until(k.t, func() error {
		if k.running.HasEnded() {
			k.t.Fatal("the API server has ended")
		}
		_, _, err := k.ask(http.MethodGet, "/healthz", "", nil)
		return err
	})
}

// kill ends the API server with SIGKILL.
func (k *kubernetesAPI) kill() { k.running.Kill() }

// define creates the missing definitions of resources, and waits until all resources can be
// used.
func (k *kubernetesAPI) define() {
	k.t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "crds", "*.yaml"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, file := range files {
		definition, err := os.ReadFile(file)
		if err != nil {
			k.t.Fatal(err)
		}
		k.apply(definitionsPath+strings.TrimSuffix(filepath.Base(file), ".yaml"), definition)
	}
	for resource := range collections {
		testutil.Until(k.t, func() error {
			_, _, err := k.list(resource, "")
			return err
		})
	}
}

// undefine deletes a definition, and with it all objects.
func (k *kubernetesAPI) undefine(name string) {
	k.t.Helper()
	if _, _, err := k.ask(http.MethodDelete, definitionsPath+name, "", nil); err != nil {
		k.t.Error(err)
	}
}

// apply does what kubectl apply --server-side --force-conflicts does.
func (k *kubernetesAPI) apply(path string, object []byte) {
	k.t.Helper()
	if _, _, err := k.ask(http.MethodPatch, path+"?force=true&fieldManager=test", "application/apply-patch+yaml", object); err != nil {
		k.t.Error(err)
	}
}

// Put implements apiServer.
func (k *kubernetesAPI) Put(resource string, o kubetest.Object) {
	k.t.Helper()
	c := collections[resource]
	o["apiVersion"], o["kind"] = c.version, c.kind
	b, err := json.Marshal(o)
	if err != nil {
		k.t.Fatal(err)
	}
	meta := o["metadata"].(kubetest.Object)
	k.apply(fmt.Sprintf(c.path, meta["namespace"])+"/"+meta["name"].(string), b)
}

// Delete implements apiServer.
func (k *kubernetesAPI) Delete(resource, namespace, name string) {
	k.t.Helper()
	code, _, err := k.ask(http.MethodDelete, fmt.Sprintf(collections[resource].path, namespace)+"/"+name, "", nil)
	if err != nil && code != http.StatusNotFound {
		k.t.Error(err)
	}
}

// Get implements apiServer.
func (k *kubernetesAPI) Get(resource, namespace, name string) kubetest.Object {
	k.t.Helper()
	code, object, err := k.ask(http.MethodGet, fmt.Sprintf(collections[resource].path, namespace)+"/"+name, "", nil)
	if code == http.StatusNotFound {
		return nil
	}
	if err != nil {
		k.t.Error(err)
	}
	return object
}

// ask makes a request. The response is an object except for /healthz. Any status other than
// success is an error.
func (k *kubernetesAPI) ask(method, path, contentType string, body []byte) (code int, answer kubetest.Object, err error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), testutil.WaitTimeout)
	defer cancel()
	response, err := k.send(ctx, method, path, contentType, body)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, b)
	}
	_ = json.Unmarshal(b, &answer)
	return response.StatusCode, answer, err
}

func (k *kubernetesAPI) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, k.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	return k.http.Do(r)
}

// list returns one page of a collection.
func (k *kubernetesAPI) list(resource, query string) (code int, page kubetest.Object, err error) {
	return k.ask(http.MethodGet, fmt.Sprintf(collections[resource].path, inNamespace)+"?"+query, "", nil)
}

// version returns the resource version of a collection, which is also etcd's revision.
func (k *kubernetesAPI) version(resource string) string {
	k.t.Helper()
	_, page, err := k.list(resource, "limit=1")
	if err != nil {
		k.t.Fatal(err)
	}
	return page["metadata"].(kubetest.Object)["resourceVersion"].(string)
}

// events are the events of the test's own watch, which ends with the test.
type events struct {
	mu  sync.Mutex
	all []kubetest.Object
}

// watch starts to receive the changes of a collection since a version.
func (k *kubernetesAPI) watch(resource, version string) *events {
	k.t.Helper()
	path := fmt.Sprintf(collections[resource].path, inNamespace) + "?watch=true&resourceVersion=" + version
	var response *http.Response
	testutil.Until(k.t, func() (err error) {
		response, err = k.send(k.t.Context(), http.MethodGet, path, "", nil)
		if err == nil && response.StatusCode == http.StatusTooManyRequests { // the API server has just started
			response.Body.Close()
			return fmt.Errorf("GET %s: %s", path, response.Status)
		}
		return err
	})
	e := new(events)
	var receiving sync.WaitGroup
	k.t.Cleanup(receiving.Wait)
	receiving.Go(func() {
		defer response.Body.Close()
		for d := json.NewDecoder(response.Body); ; {
			var event kubetest.Object
			if d.Decode(&event) != nil { // the end of the test, or of the API server
				return
			}
			e.mu.Lock()
			e.all = append(e.all, event)
			e.mu.Unlock()
		}
	})
	return e
}

// waitFor waits for an event.
func (e *events) waitFor(t *testing.T, what string, is func(kubetest.Object) bool) (event kubetest.Object) {
	t.Helper()
	testutil.Until(t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, event = range e.all {
			if is(event) {
				return nil
			}
		}
		return fmt.Errorf("none of these events is %s: %v", what, e.all)
	})
	return event
}

// compact removes all history from the etcd of the API server.
func (k *kubernetesAPI) compact() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
	defer cancel()
	now, err := k.etcd.Get(ctx, "any")
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.etcd.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		k.t.Fatal(err)
	}
}

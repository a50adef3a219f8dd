package kube

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	security "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// container returns the pod's only container.
func (o objects) container() core.Container { return o.pod().Spec.Containers[0] }

// flags returns the program's flags and their values.
func (o objects) flags() map[string]string {
	flags := make(map[string]string)
	for _, arg := range o.container().Args {
		name, value, _ := strings.Cut(arg, "=")
		flags[name] = value
	}
	return flags
}

// env returns the variables that have a value.
func (o objects) env() map[string]string {
	env := make(map[string]string)
	for _, v := range o.container().Env {
		env[v.Name] = v.Value
	}
	return env
}

// Outside of a cluster the program must complain only about the API server: no flag is unknown,
// repeated or without effect, and no value is wrong.
func TestPodFlagsAreAccepted(t *testing.T) {
	each(t, func(t *testing.T, _ release, o objects) {
		web := filepath.Join(t.TempDir(), "web.yml")
		if err := os.WriteFile(web, []byte("basic_auth_users: {}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		run := exec.Command(metrics)
		for _, v := range o.container().Env {
			run.Env = append(run.Env, v.Name+"="+cmp.Or(v.Value, "secret"))
		}
		for _, arg := range o.container().Args {
			name, value, given := strings.Cut(arg, "=")
			switch {
			case name == "--web.config.file":
				arg = name + "=" + web
			case given:
				arg = name + "=" + variables.ReplaceAllString(value, "secret")
			}
			run.Args = append(run.Args, arg)
		}
		out, err := run.CombinedOutput()
		if want := "KUBERNETES_SERVICE_HOST is not set"; run.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v: want exit status 2 and %q, got\n%s", run.Args[1:], err, want, out)
		}
	})
}

// variables matches the variables that Kubernetes expands in arguments.
var variables = regexp.MustCompile(`\$\([A-Z_]+\)`)

func TestPodPassesTheRestrictedStandard(t *testing.T) {
	standard, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	latest := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
	evaluate := func(pod core.PodTemplateSpec) policy.AggregateCheckResult {
		return policy.AggregateCheckResults(standard.EvaluatePod(latest, &pod.ObjectMeta, &pod.Spec))
	}
	each(t, func(t *testing.T, _ release, o objects) {
		pod := o.pod()
		if got := evaluate(pod); !got.Allowed {
			t.Error(got.ForbiddenDetail())
		}
		if !*pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem { // not required by the standard
			t.Error("the root file system can be written")
		}
		pod.Spec.Containers[0].SecurityContext.Capabilities = nil
		if evaluate(pod).Allowed {
			t.Error("the standard allows every capability: it was not checked")
		}
	})
}

func TestPodUserIsTheImages(t *testing.T) {
	o, err := decode(plain.render(t))
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := user(t)
	context := o.pod().Spec.SecurityContext
	if *context.RunAsUser != int64(uid) || *context.RunAsGroup != int64(gid) {
		t.Errorf("pods run as %d:%d, the image as %d:%d", *context.RunAsUser, *context.RunAsGroup, uid, gid)
	}
}

func TestPodMountsExistingVolumes(t *testing.T) {
	each(t, func(t *testing.T, _ release, o objects) {
		var volumes, mounts []string
		for _, v := range o.pod().Spec.Volumes {
			volumes = append(volumes, v.Name)
		}
		for _, m := range o.container().VolumeMounts {
			mounts = append(mounts, m.Name)
			if !m.ReadOnly {
				t.Errorf("%s can be written", m.Name)
			}
		}
		if !slices.Equal(volumes, mounts) {
			t.Errorf("volumes %q, mounts %q", volumes, mounts)
		}
		if config, given := o.flags()["--web.config.file"]; given && !slices.ContainsFunc(o.container().VolumeMounts, func(m core.VolumeMount) bool {
			return strings.HasPrefix(config, m.MountPath+"/")
		}) {
			t.Errorf("no volume is mounted at --web.config.file %s", config)
		}
	})
}

func TestPodPortIsTheSameEverywhere(t *testing.T) {
	each(t, func(t *testing.T, _ release, o objects) {
		port := o.container().Ports[0]
		if got := o.flags()["--metrics-port"]; got != strconv.Itoa(int(port.ContainerPort)) {
			t.Errorf("--metrics-port %s, the pod's port %d", got, port.ContainerPort)
		}
		service := o.service.Spec.Ports[0]
		if service.TargetPort.StrVal != port.Name || service.Port != port.ContainerPort {
			t.Errorf("the Service's port is %d to %s, want %d to %s", service.Port, service.TargetPort.StrVal, port.ContainerPort, port.Name)
		}
		if o.monitor != nil && o.monitor.Spec.Endpoints[0].Port != service.Name {
			t.Errorf("the ServiceMonitor's port is %s, want %s", o.monitor.Spec.Endpoints[0].Port, service.Name)
		}
		if o.network != nil && o.network.Spec.Ingress[0].Ports[0].Port.IntVal != port.ContainerPort {
			t.Errorf("the NetworkPolicy lets %d in, want %d", o.network.Spec.Ingress[0].Ports[0].Port.IntVal, port.ContainerPort)
		}
		for _, probe := range []*core.Probe{o.container().ReadinessProbe, o.container().LivenessProbe} {
			get := probe.HTTPGet
			if get != nil && get.Port.StrVal != port.Name || get == nil && probe.TCPSocket.Port.StrVal != port.Name {
				t.Errorf("a probe uses another port: %v", probe)
			}
		}
	})
}

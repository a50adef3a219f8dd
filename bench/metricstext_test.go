package main

import "testing"

func TestMetricsTextWithPrefix(t *testing.T) {
	const text = "a 1\na 2\n# TYPE b gauge\nb{x=\"1\"} 3\nb{x=\"2\"} 4\nbb 5\nc 6\n"
	for start, want := range map[string]string{
		"a":  "a 1\na 2\n",
		"b{": "b{x=\"1\"} 3\nb{x=\"2\"} 4\n",
		"bb": "bb 5\n",
		"c":  "c 6\n",
		"d":  "",
	} {
		if got := string(metricsText(text).withPrefix(start)); got != want {
			t.Errorf("part %q is %q, want %q", start, got, want)
		}
	}
	if n, sum := metricsText(text).sum("b"); n != 3 || sum != 12 {
		t.Errorf("%d series, sum %v; want 3 and 12", n, sum)
	}
}

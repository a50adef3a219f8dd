package e2e

import (
	"errors"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bound is a number in the table of limits in SECURITY.md, with the constant that sets it and the
// test that reaches it.
type bound struct {
	row, text      string // the row's name, and the text there that begins with the number
	constant, test string // each after its package
}

// bounds are all numbers of the table, in its order.
var bounds = []bound{
	{"workers", "1/4 of it", "fleet unregisteredShare", "fleet TestLimitsUnregisteredWorkersToAQuarter"},
	{"workers", "4,096", "fleet minUnregisteredLimit", "fleet TestLimitsUnregisteredWorkersToAQuarter"},
	{"workers", "1/16", "fleet staticShare", "fleet TestLimitsStaticWorkersToASixteenth"},
	{"workers", "1,024", "fleet minStaticLimit", "fleet TestLimitsStaticWorkersToASixteenth"},
	{"endpoints", "1,024", "fleet minEndpointLimit", "fleet TestLimitsEmptyEndpoints"},
	{"endpoints", "1,024", "fleet minEndpointLimit", "fleet TestLimitsEndpointsOfStaticWorkers"},
	{"endpoints", "10 min", "fleet retention", "fleet TestLimitsTimesAreDocumented"},
	{"endpoints of workers", "64 of one", "fleet maxAttachments", "fleet TestWorkerLimitOnEndpointsOfOneWorker"},
	{"endpoints of workers", "8 ×", "fleet attachmentsPerWorker", "fleet TestLimitsAttachmentsToEightPerWorker"},
	{"data parallel ranks", "256 of one", "fleet maxRanks", "fleet TestLimitsRanksOfOneWorker"},
	{"data parallel ranks", "1/4 of", "fleet extraRankShare", "fleet TestLimitsExtraRanks"},
	{"data parallel ranks", "8,192", "fleet minExtraRankLimit", "fleet TestLimitsExtraRanks"},
	{"data parallel ranks", "1/4", "fleet unregisteredRankShare", "fleet TestLimitsUnregisteredRanks"},
	{"data parallel ranks", "1,024", "fleet minUnregisteredRankLimit", "fleet TestLimitsUnregisteredRanks"},
	{"events before a registration", "10 min", "fleet retention", "fleet TestLimitsTimesAreDocumented"},
	{"keys of one registration", "16", "fleet maxKeys", "fleet TestLimitsKeysOfOneRegistration"},
	{"a snapshot", "4,096 endpoints", "monitor maxEndpoints", "monitor TestLimitOfEndpoints"},
	{"a snapshot", "131,072 rows", "monitor maxRows", "monitor TestLimitOfRows"},
	{"a snapshot", "1,000 of workers", "monitor maxUnregisteredRows", "monitor TestLimitOfUnregisteredRows"},
	{"a snapshot", "32 MiB", "monitor maxRowBytes", "monitor TestLimitOfSnapshotBytes"},
	{"a snapshot", "200 problems", "monitor maxProblems", "monitor TestLimitOfProblems"},
	{"a snapshot", "4 MiB", "monitor maxProblemBytes", "monitor TestLimitOfSnapshotBytes"},
	{"a snapshot", "15 min", "monitor historyLength * historyStep", "monitor TestHistoryKeepsFifteenMinutes"},
	{"a snapshot", "65,536 rows", "monitor maxHistoryRows", "monitor TestHistoryRowsAreBounded"},
	{"a snapshot", "10 min", "monitor lostWindow", "monitor TestProblemLostLastsTenMinutes"},
	{"a snapshot", "65,536 workers", "monitor maxDepartures", "monitor TestLostDeparturesAreBounded"},
	{"the reason why a server is not connected", "300 bytes", "stats maxErrorLength", "stats TestConnStateLastErrorWhileDown"},
	{"names and ids", "256 bytes", "wire maxName", "wire TestLimitOfNames"},
	{"names and ids", "1 KiB", "wire maxTransport", "wire TestLimitOfTransport"},
	{"a NATS message", "32,768 messages", "connect maxPending", "connect TestBackpressureDialerSlowsServer"},
	{"a NATS message", "16 MiB", "connect maxPendingBytes", "connect TestBackpressureDialerSlowsServer"},
	{"event channels", "1 KiB", "fleet channelBytesPerWorker", "fleet TestChannelsMemoryIsBounded"},
	{"event channels", "1 MiB", "fleet minChannelBytes", "fleet TestChannelsMemoryIsBounded"},
	{"ZeroMQ subscriptions", "4 × `--max-workers`", "collect slotsPerWorker", "collect TestMaxZMQSubscriptionsFollowsLimits"},
	{"ZeroMQ subscriptions", "1,024", "collect minSlots", "collect TestMaxZMQSubscriptionsFollowsLimits"},
	{"ZeroMQ subscriptions", "16,384", "collect maxSlots", "collect TestMaxZMQSubscriptionsFollowsLimits"},
	{"ZeroMQ subscriptions", "1/4 of", "collect workersPerSlot", "collect TestMaxZMQSubscriptionsFollowsLimits"},
	{"ZeroMQ subscriptions", "512", "collect reservedDescriptors", "collect TestMaxZMQSubscriptionsFollowsLimits"},
	{"ZeroMQ subscriptions", "16 connect", "collect maxDialsPerAddress", "collect TestZMQLimitsDialsPerAddress"},
	{"ZeroMQ subscriptions", "10 s", "collect yieldSlotAfter", "collect TestZMQDialsNoMoreThanSlots"},
	{"ZeroMQ subscriptions", "4 × as many", "collect sourcesPerSlot", "collect TestZMQRemembersFourSourcesPerSlot"},
	{"ZeroMQ subscriptions", "4,096", "collect minSources", "collect TestZMQBoundsSources"},
	{"an answer to a poll", "5 s", "collect minReplyTimeout", "collect TestPollerRejectsLateReply"},
	{"warnings of event planes", "20 components", "collect maxNames", "collect TestPlaneCheckBoundsLogAndMismatches"},
	{"warnings of event planes", "100 are", "collect maxMismatches", "collect TestPlaneCheckBoundsLogAndMismatches"},
	{"sequences of publishers", "262,144", "collect maxStreams", "collect TestGapDetectorBoundsStreams"},
	{"events that may arrive out of order", "65,536 gaps", "collect maxGaps", "collect TestOpenGapsAreBounded"},
	{"events that may arrive out of order", "256", "collect maxGapsPerStream", "collect TestOpenGapsAreBounded"},
	{"a ZeroMQ event", "64 KiB", "collect maxEvent", "collect TestZMQBoundsMessageSize"},
	{"a ZeroMQ event", "1 MiB", "zmtp defaultMaxMessage", "zmtp TestFrameReaderDefaultLimits"},
	{"a ZeroMQ event", "64 frames", "zmtp defaultMaxFrames", "zmtp TestFrameReaderDefaultLimits"},
	{"a ZeroMQ event", "5 s", "zmtp defaultHandshakeTimeout", "zmtp TestSubLimitsHandshakesByDefault"},
	{"a ZeroMQ event", "4 KiB", "zmtp maxCommand", "zmtp TestFrameReaderLimits"},
	{"msgpack", "256 fields", "wire maxFields", "wire TestLimitOfMsgpackFields"},
	{"msgpack", "32 levels", "wire maxDepth", "wire TestLimitOfMsgpackNesting"},
	{"the registry in etcd", "4 MiB", "connect MaxEtcdMessage", "leader TestEtcdLockKeyTooLargeToRead"},
	{"the registry in etcd", "32 MiB", "discovery maxKey", "discovery TestEtcdListSkipsLongKeys"},
	{"the registry in etcd", "1 MiB", "discovery maxValue", "discovery TestEtcdListCountsLargeValues"},
	{"the registry in etcd", "16 ×", "discovery listedPerWorker", "discovery TestEtcdListIsBounded"},
	{"the registry in etcd", "1,024", "discovery minListedWorkers", "discovery TestEtcdListIsBounded"},
	{"the registry in etcd", "5 s", "connect EtcdCallTimeout", "discovery TestEtcdOneBadEndpointOfSeveral"},
	{"the registry in Kubernetes", "500 objects", "kube pageSize", "kube TestListWatchListsPagesThenWatches"},
	{"the registry in Kubernetes", "1 min", "kube listTimeout", "kube TestListWatchListTimeoutIsMinute"},
	{"the registry in Kubernetes", "8 MiB", "kube maxObject", "kube TestListWatchRejectsInvalidResponses"},
	{"the registry in Kubernetes", "16 ×", "discovery listedPerWorker", "discovery TestKubernetesResourcesAreBounded"},
	{"the registry in Kubernetes", "1,024", "discovery minListedWorkers", "discovery TestKubernetesResourcesAreBounded"},
	{"the registry in Kubernetes", "30 s", "kube maxPause", "kube TestBackoffGrowsWhileServerFails"},
	{"the registry in Kubernetes", "60 s", "kube maxRetryAfter", "kube TestBackoffHonorsRetryAfter"},
	{"the registry in files", "1 MiB", "discovery maxFile", "discovery TestFilesUpToOneMebibyte"},
	{"the registry in files", "200,000 files", "discovery maxFiles", "discovery TestFilesTooManyAreNotListed"},
	{"the registry in files", "10 s", "discovery fileTTL", "discovery TestFilesExpireUnlessTouched"},
	{"a scrape of a worker", "4 MiB", "collect maxMetricsSize", "collect TestMetricsReaderBoundsSize"},
	{"a scrape of a worker", "512 KiB", "wire maxSamples", "wire TestLimitOfWorkerMetrics"},
	{"a scrape of a worker", "32 KiB", "wire maxLine", "wire TestLimitOfWorkerMetrics"},
	{"a scrape of a worker", "64 labels", "wire maxLabels", "wire TestLimitOfWorkerMetrics"},
	{"a scrape of a worker", "64 KiB", "collect maxHeader", "collect TestMetricsReaderBoundsSize"},
	{"a scrape of a worker", "2 s", "collect ScrapeTimeout", "collect TestSchedulerBoundsScrapes"},
	{"a scrape of a worker", "1 min", "collect MaxScrapeTimeout", "app TestScrapeTimeoutIsBounded"},
	{"a scrape of a worker", "100 at once", "collect quickSlots", "collect TestSchedulerBoundsScrapes"},
	{"a scrape of a worker", "8 that are", "collect slowSlots", "collect TestSchedulerBoundsScrapes"},
	{"a scrape of a worker", "8 that take", "collect longSlots", "collect TestSchedulerBoundsLongScrapes"},
	{"a scrape of a worker", "2 s", "collect slowTimeout", "collect TestSchedulerBoundsLongScrapes"},
	{"a scrape of a worker", "256 connections", "collect maxIdle", "collect TestScrapeLimitsTakeQuarterOfDescriptors"},
	{"a scrape of a worker", "1/4", "collect descriptorShare", "collect TestScrapeLimitsTakeQuarterOfDescriptors"},
	{"a Pushgateway's response", "4 KiB", "exposition maxResponse", "exposition TestPushLimitsResponseSize"},
	{"a Pushgateway's response", "10 requests", "exposition maxRedirects", "exposition TestPushLimitsRedirects"},
	{"a Pushgateway's response", "2 s", "exposition lastPushTimeout", "exposition TestPushEndsWithinTimeout"},
	{"log lines about workers that join and leave", "5 s", "discovery logInterval", "discovery TestWorkerLogSumsManyChanges"},
	{"log lines about workers that join and leave", "4 endpoints", "discovery maxLoggedEndpoints", "discovery TestWorkerLogNamesFourEndpoints"},
	{"log lines about workers that join and leave", "8 ids", "discovery maxLoggedIDs", "discovery TestWorkerLogStartsWithOneLine"},
	{"log lines about problems", "20 that", "monitor maxLogged", "monitor TestProblemLogLimitsManyProblems"},
	{"log lines about problems", "1 min", "monitor logInterval", "monitor TestProblemLogLimitsFlappingProblem"},
	{"log lines about problems", "400 bytes", "monitor maxLoggedDetail", "monitor TestProblemLogOmitsLongDetail"},
	{"log lines that wait to be written", "4,096", "dynlog maxQueuedLines", "dynlog TestOutputNeverBlocksLoggers"},
	{"log lines that wait to be written", "1 MiB", "dynlog maxQueuedBytes", "dynlog TestOutputQueueIsBoundedInBytes"},
	{"an HTTP request", "64 KiB", "web maxHeaders", "web TestServeLimitsHeaders"},
	{"an HTTP request", "5 s", "web headerTimeout", "web TestServeCutsOffSlowClients"},
	{"an HTTP request", "10 s", "web requestTimeout", "web TestServeCutsOffSlowClients"},
	{"an HTTP request", "30 s", "web responseTimeout", "web TestServeCutsOffClientsThatDoNotRead"},
	{"an HTTP request", "2 min", "web idleTimeout", "web TestServeCutsOffSlowClients"},
	{"an HTTP request", "3 s", "web StallTimeout", "web TestPageCacheStalledHTTP2Clients"},
	{"responses of `/metrics`", "4 in", "exposition maxBuffers", "web TestPageCacheBoundsStalledClients"},
	{"responses of `/metrics`", "2 s", "exposition maxPieceTime", "web TestPageCacheEvictsOnlyIfOthersWait"},
	{"responses of `/metrics`", "64 KiB", "exposition pieceSize", "web TestPageCachePieceHasTwoSeconds"},
	{"responses of `/metrics`", "10 s", "exposition MaxPageTime", "web TestPageCacheSteadyReaderHasTenSeconds"},
	{"streams of snapshots", "100, each", "web maxStreams", "web TestStreamCountIsLimited"},
	{"streams of snapshots", "64 KiB", "web socketSendBuffer", "web TestStreamLimitsSocketSendBuffer"},
	{"streams of snapshots", "10 s", "web sendTimeout", "web TestStreamSkipsSnapshotsForSlowClient"},
	{"responses in JSON", "10 s", "web sendTimeout", "web TestAPICutsOffSlowClients"},
	{"responses in JSON", "4 at once", "web maxTargetLists", "web TestTargetsFourListsAtOnce"},
	{"a file of log settings", "64 KiB", "dynlog maxSettingsBytes", "dynlog TestSettingsFileErrorsAreWarnings"},
	{"warnings about `DYN_LOG` and those files", "10", "dynlog maxWarnings", "dynlog TestFilterWarningsAreBounded"},
	{"warnings about `DYN_LOG` and those files", "100 bytes", "dynlog maxQuotedBytes", "dynlog TestFilterWarningsAreBounded"},
	{"a web configuration", "1 MiB", "web maxWebFile", "web TestWebConfigLosingPasswordIsRefused"},
	{"a web configuration", "100 wrong", "web maxWrongPasswords", "web TestWebConfigPasswordMemoryIsBounded"},
}

// TestSecurityBoundsMatchTheCode compares the table of limits with the code: each number in it is
// the value of a constant, and a test reaches it.
func TestSecurityBoundsMatchTheCode(t *testing.T) {
	t.Parallel()
	rows := boundRows(t)
	packages := make(map[string]*sources)
	source := func(name string) *sources {
		if packages[name] == nil {
			packages[name] = readSources(t, name)
		}
		return packages[name]
	}
	for _, b := range bounds {
		limits, found := rows[b.row]
		if !found || !strings.Contains(limits, b.text) {
			t.Errorf("SECURITY.md: the row %q does not have %q", b.row, b.text)
			continue
		}
		rows[b.row] = strings.Replace(limits, b.text, "", 1)
		directory, name, _ := strings.Cut(b.constant, " ")
		want := quantity(t, b.text)
		if got, err := source(directory).eval(name); err != nil || constant.Compare(got, token.NEQ, want) {
			t.Errorf("%s, %s: %s is %v, want %v (%v)", b.row, b.text, b.constant, got, want, err)
		}
		directory, name, _ = strings.Cut(b.test, " ")
		if !source(directory).tests[name] {
			t.Errorf("%s, %s: there is no test %s", b.row, b.text, b.test)
		}
	}
	for row, limits := range rows {
		limits = strings.NewReplacer("UTF-8", "", "HTTP/2", "").Replace(limits)
		if rest := regexp.MustCompile(`[0-9][0-9,.]*[^0-9|]{0,20}`).FindAllString(limits, -1); rest != nil {
			t.Errorf("SECURITY.md: the row %q has %q, for which bounds has no constant and no test", row, rest)
		}
	}
}

// boundRows returns the limits in the table, by the names of the rows.
func boundRows(t *testing.T) map[string]string {
	t.Helper()
	_, table, found := strings.Cut(string(readFile(t, "../SECURITY.md")), "| what | limit |\n")
	if !found {
		t.Fatal("SECURITY.md has no table of limits")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := make(map[string]string)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) == 2 {
			rows[cells[0]] = cells[1]
		}
	}
	return rows
}

// quantity returns the number at the beginning of a text, in bytes, nanoseconds or pieces. For a
// fraction such as 1/4 it returns 4.
func quantity(t *testing.T, text string) constant.Value {
	t.Helper()
	number, unit, _ := strings.Cut(text, " ")
	number = strings.TrimSuffix(strings.TrimPrefix(number, "1/"), ",")
	n, err := strconv.ParseInt(strings.ReplaceAll(number, ",", ""), 10, 64)
	if err != nil {
		t.Fatalf("%q does not begin with a number", text)
	}
	unit, _, _ = strings.Cut(unit, " ")
	units := map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute)}
	if times, known := units[unit]; known {
		n *= times
	}
	return constant.MakeInt64(n)
}

// sources is what readSources reads of a package.
type sources struct {
	fset  *token.FileSet
	types *types.Package
	tests map[string]bool // the names
}

// eval evaluates an expression with the package's constants.
func (s *sources) eval(expression string) (constant.Value, error) {
	v, err := types.Eval(s.fset, s.types, token.NoPos, expression)
	if err == nil && v.Value == nil {
		err = errors.New("not constant")
	}
	return v.Value, err
}

// readSources reads the constants of a package in internal, and the names of its tests, with
// any build tag.
func readSources(t *testing.T, directory string) *sources {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "internal", directory, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no Go files (%v)", directory, err)
	}
	s := &sources{fset: token.NewFileSet(), tests: make(map[string]bool)}
	var files []*ast.File
	for _, path := range paths {
		file, err := parser.ParseFile(s.fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "_test.go") {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
					s.tests[f.Name.Name] = true
				}
			}
			continue
		}
		files = append(files, constantsOf(file))
	}
	config := types.Config{Importer: importer.ForCompiler(s.fset, "gc", nil), Error: func(error) {}} // because declarations are missing
	s.types, _ = config.Check(directory, s.fset, files, nil)
	return s
}

// constantsOf returns the file with only its constants, and the imports that they need.
func constantsOf(file *ast.File) *ast.File {
	only := *file
	only.Decls = nil
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST || ok && g.Tok == token.IMPORT && isNeeded(g) {
			only.Decls = append(only.Decls, d)
		}
	}
	return &only
}

// isNeeded removes the imports that no constant needs, because reading those packages takes long. It
// reports whether any is left.
func isNeeded(g *ast.GenDecl) bool {
	var specs []ast.Spec
	for _, s := range g.Specs {
		if path := s.(*ast.ImportSpec).Path.Value; path == `"time"` || path == `"math"` {
			specs = append(specs, s)
		}
	}
	g.Specs = specs
	return len(specs) > 0
}

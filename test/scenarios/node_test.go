//go:build linux

package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// nodesVariable lists directories with other versions of node, as .ci/run gets them:
// DIR/18/bin/node and so on.
const nodesVariable = "ETCDLOCK_TEST_NODES"

// nodes returns the versions of node that modules are run with, by their names: that in PATH, and
// others.
func nodes(t *testing.T) map[string]string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		etcdtest.Missing(t, "node")
	}
	out, err := exec.Command(path, "-p", "process.version").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{strings.TrimSpace(string(out)): path}
	for _, version := range []string{"18", "22", "24"} {
		t.Run("node "+version, func(t *testing.T) {
			other := filepath.Join(os.Getenv(nodesVariable), version, "bin", "node")
			if exec.Command(other, "-e", "").Run() != nil {
				etcdtest.Missing(t, "node "+version+" in the directory that "+nodesVariable+" names; .ci/run installs it from the npm registry")
			}
			found["v"+version] = other
		})
	}
	return found
}

// module writes a module and returns its name.
func module(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(programs.OpenDir(t), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// answers answers every ping, and calls then with the number of those it has answered.
const answers = `let pings = 0, then = () => {}; process.on('message', m => { if (m && 'ping' in m) process.send({pong: m.ping}, () => then(++pings)); });
`

// lives keeps a module running that has nothing to wait for.
const lives = `setInterval(() => {}, 1000);
`

// channelFD finds the descriptor of the channel, which node hides.
const channelFD = `const fs = require('fs'); const fd = Number(/NODE_CHANNEL_FD=(\d+)/.exec(fs.readFileSync('/proc/self/environ', 'latin1'))[1]);
`

// A row is a module with what it is to come to.
type row struct {
	name string
	text string
	code int
	says []string // on stderr
	args []string // instead of a refresh interval of 0.1 s
	ext  string   // cjs if it is empty
	own  bool     // the module or node itself says why
}

// quick are options for modules that are to be given up soon.
var quick = []string{"-t", "4", "-r", "0.1", "--grace", "0.2"}

// less is quick for modules that answer before: so long a busy machine may take to start node.
var less = []string{"-t", "15", "-r", "0.1", "--grace", "0.2"}

var rows = []row{
	{name: "answers, ends 0", text: answers + `then = n => { if (n == 5) process.exit(0) }`},
	{name: "answers, ends 7", text: answers + `then = n => { if (n == 5) process.exit(7) }`, code: 7},
	{name: "ESM", ext: "mjs", code: 7,
		text: `import process from 'node:process'; let n = 0; await new Promise(done => setTimeout(done, 300));
			process.on('message', ({ping}) => process.send({pong: ping}, () => { if (++n == 3) process.exit(7) }));`},
	{name: "slow to start", text: `const until = Date.now() + 500; while (Date.now() < until); setTimeout(() => { ` + answers + ` then = n => { if (n == 2) process.exit(0) } }, 300)`},
	{name: "connected, and told of the end", code: 6, args: []string{"-r", "0.1"},
		text: answers + `if (!process.connected || !process.channel || process.env.NODE_CHANNEL_FD) process.exit(9);
			process.on('disconnect', () => process.exit(6)); then = n => { if (n == 2) process.disconnect() }`},
	{name: "late, but in time", args: []string{"-t", "20", "-r", "0.1"},
		text: `let n = 0; process.on('message', m => setTimeout(() => process.send({pong: m.ping}, () => { if (++n == 2) process.exit(0) }), 1500))`},
	{name: "never answers", text: lives, code: 4, args: quick, says: []string{"did not answer its first ping within 4s", "process.send({pong: m.ping})"}},
	{name: "answers no more", text: `process.once('message', m => process.send({pong: m.ping}));` + lives, code: 4, args: less, says: []string{"did not answer a ping within 15s"}},
	{name: "blocks", text: answers + `process.on('SIGTERM', () => {}); then = n => { if (n == 2) for (;;); }`, code: 4, args: less, says: []string{"did not answer a ping within 15s"}},
	{name: "wrong number", text: `process.on('message', m => process.send({pong: m.ping + 1}))`, code: 4, says: []string{"answered ping", "with pong"}},
	{name: "right number as a string", text: `process.on('message', m => process.send({pong: String(m.ping)}))`, code: 4, says: []string{`with pong "`}},
	{name: "answers with undefined", text: `process.on('message', m => process.send({pong: undefined}))`, code: 4, args: quick, says: []string{"did not answer"}},
	{name: "other messages", args: []string{"-r", "0.1", "-v"}, says: []string{`hello`, "debug: message from the module text=null", "bytes)"},
		text: answers + `for (const m of [{hello: 1}, null, 'text', 0, true, [], [{pong: 1}], {x: {pong: 1}}, {PONG: 1}, {cmd: 'NODE_x'}, 'x'.repeat(1 << 19)]) process.send(m);
			let deep = {}; for (let i = 0; i < 2000; i++) deep = [{deep}]; process.send(deep);
			then = n => { if (n == 3) process.exit(0) }`},
	{name: "sends a handle", args: []string{"-r", "0.1", "-v"}, says: []string{"NODE_HANDLE"},
		text: answers + `const server = require('net').createServer().listen(0, '127.0.0.1', () => { process.send({take: 'this'}, server); then = n => { if (n == 3) process.exit(0) } })`},
	{name: "answers twice", text: answers + `process.on('message', m => process.send({pong: m.ping})); then = n => { if (n == 5) process.exit(0) }`},
	{name: "disconnects without answering", text: `process.disconnect();` + lives, code: 4, says: []string{"closed its channel"}},
	{name: "answers and disconnects", text: answers + `then = n => { if (n == 2) process.disconnect() };` + lives, code: 4, says: []string{"closed its channel"}},
	{name: "disconnects and ends", text: answers + `then = n => { if (n == 2) { process.disconnect(); process.exitCode = 5 } }`, code: 5},
	{name: "throws", text: answers + `then = n => { throw new Error('of the module') }`, code: 1, own: true, says: []string{"of the module"}},
	{name: "ends before the first ping", text: `process.exit(3)`, code: 3},
	{name: "dies of a signal", text: answers + `then = n => process.kill(process.pid, 'SIGKILL')`, code: 137, says: []string{"died of SIGKILL"}},
	{name: "ignores SIGTERM", text: `process.on('SIGTERM', () => {});` + lives, code: 4, args: quick, says: []string{"did not answer"}},
	{name: "has children of its own", code: 4, args: quick, says: []string{"did not answer"},
		text: `const {fork, spawn} = require('child_process'); if (process.argv[2]) { process.on('SIGTERM', () => {}); setInterval(() => {}, 1000) } else {
			fork(__filename, ['child']); spawn('sleep', ['1000'], {detached: true}); ` + lives + `}`},
	{name: "writes and does not read", code: 4, args: quick, says: []string{"did not answer"},
		text: channelFD + `
			process.once('message', m => process.send({pong: m.ping}, () => { for (;;) try { fs.writeSync(fd, '{"cmd":"NODE_HANDLE"}\n') } catch (e) {} }))`},
	{name: "too long a line", text: answers + `process.send('x'.repeat(2 << 20));` + lives, code: 4, says: []string{"a message of more than 1048576 bytes"}},
	{name: "no JSON", code: 4, says: []string{"text that is not JSON: garbage"},
		text: answers + channelFD + `fs.writeSync(fd, 'garbage\n');` + lives},
}

// TestNode: each kind of module comes to the end that belongs to it, with each version of node, and
// nothing is left of it.
func TestNode(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for version, node := range nodes(t) {
		for _, r := range rows {
			t.Run(version+"/"+r.name, func(t *testing.T) {
				t.Parallel()
				key := "/node/" + version + "/" + strings.ReplaceAll(r.name, " ", "-")
				ext, args := "cjs", []string{"-r", "0.1"}
				if r.ext != "" {
					ext = r.ext
				}
				if r.args != nil {
					args = r.args
				}
				args = append(args, "-n", "--node-path", node, "-k", key, "--", module(t, "worker."+ext, r.text))
				p := programs.Locker(t, s.Endpoint(), args...)
				if code := p.Code(); code != r.code {
					t.Errorf("exit code %d, want %d: %s", code, r.code, p.Stderr)
				}
				for _, text := range r.says {
					if !strings.Contains(p.Stderr.String(), text) {
						t.Errorf("it does not say %q: %s", text, p.Stderr)
					}
				}
				if r.code == 4 != strings.Contains(p.Said(), "etcdlocker: hint: ") || r.code != 4 && !r.own && len(r.says) == 0 && p.Said() != "" {
					t.Errorf("it says %q", p.Stderr)
				}
				programs.AwaitTreeEnd(t, key)
				programs.CheckFree(t, s.Client(t), key)
			})
		}
	}
}

// TestNodeArguments: the module gets its words as they are, and without a module there is nothing
// to run.
func TestNodeArguments(t *testing.T) {
	t.Parallel()
	nodes(t)
	s := etcdtest.Shared(t)
	file := module(t, "index.js", `console.log(JSON.stringify([process.argv.slice(1), process.argv0, process.execArgv])); process.exit(0)`)
	p := programs.Start(t, []string{"ETCD_LOCK_HOST=" + s.Endpoint(), "ETCD_CHILD_IS_NODE=1"}, "etcdlocker", "-k", "/node/words", file, "-n", "007", "a  b", "--")
	want := fmt.Sprintf("[[%q,\"-n\",\"007\",\"a  b\",\"--\"],\"node\",[]]\n", file)
	if code := p.Code(); code != 0 || p.Stdout.String() != want {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	p = programs.Locker(t, s.Endpoint(), "-n", "-k", "/node/words", filepath.Join(t.TempDir(), "none.js"))
	if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), "no such module") {
		t.Errorf("no such module: exit code %d, %q", code, p.Stderr)
	}
	// What node alone can tell.
	p = programs.Locker(t, s.Endpoint(), "-n", "-k", "/node/words", "--", "--no-warnings", filepath.Join(t.TempDir(), "none.js"))
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "Cannot find module") {
		t.Errorf("no such module behind an option: exit code %d, %q", code, p.Stderr)
	}
	for _, name := range []string{strings.TrimSuffix(file, ".js"), filepath.Dir(file)} {
		if code := programs.Locker(t, s.Endpoint(), "-n", "-k", "/node/words", name).Code(); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
	programs.CheckFree(t, s.Client(t), "/node/words")
}

// TestNodeDocs: the modules in docs/node.md do what it says.
func TestNodeDocs(t *testing.T) {
	t.Parallel()
	nodes(t)
	s := etcdtest.Shared(t)
	page, err := os.ReadFile("../../docs/node.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```js\n// (\\S+)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 4 {
		t.Errorf("there are %d", len(blocks))
	}
	for _, block := range blocks {
		t.Run(block[1], func(t *testing.T) {
			t.Parallel()
			p := programs.Locker(t, s.Endpoint(), "-v", "-t", "20", "-r", "0.05", "-n", "-k", "/node/docs/"+block[1], "--", module(t, block[1], block[2]))
			if code := p.Code(); code != 0 || strings.Count(p.Stderr.String(), "ping answered") < 2 {
				t.Errorf("exit code %d, %s", code, p.Stderr)
			}
		})
	}
}

// TestNodeByTheOriginal: a module as one was written for the npm package's etcdlocker.
func TestNodeByTheOriginal(t *testing.T) {
	t.Parallel()
	nodes(t)
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-r", "0.1", "-n", "-k", "/node/original", "--", module(t, "worker.js", `"use strict";
		var seen = 0;
		process.on("message", function (msg) {
			process.send({ pong: msg.ping });
			seen += 1;
			if (seen === 4) { process.removeAllListeners("message"); process.disconnect(); process.exitCode = 9; }
		});`))
	if code := p.Code(); code != 9 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestNodeToldToStop: the module may take its time and close its channel, but not hang.
func TestNodeToldToStop(t *testing.T) {
	t.Parallel()
	nodes(t)
	s := etcdtest.Shared(t)
	ready := `then = n => { if (n == 2) console.log('ready') };`
	for name, tt := range map[string]struct {
		text string
		code int
		says string
	}{
		"dies":                {answers + ready, 143, "stopped by SIGTERM"},
		"says goodbye":        {answers + ready + `process.on('SIGTERM', () => { process.disconnect(); setTimeout(() => process.exit(0), 6000) })`, 143, "stopped by SIGTERM"},
		"hangs meanwhile":     {answers + ready + `process.on('SIGTERM', () => { for (;;); })`, 4, "did not answer a ping"},
		"sends rubbish":       {answers + ready + `process.on('SIGTERM', () => { process.send({pong: 'x'}); setTimeout(() => process.exit(0), 500) })`, 143, "stopped by SIGTERM"},
		"rubbish, then hangs": {answers + ready + `process.on('SIGTERM', () => { process.send({pong: 'x'}, () => { for (;;); }) })`, 4, "told to stop by SIGTERM, the module did not answer"},
		"loses its lock":      {answers + ready, 2, "lost"},
		"is left by force":    {answers + ready + lives, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, key := s.Client(t), "/node/stop/"+strings.ReplaceAll(name, " ", "-")
			p := programs.Locker(t, s.Endpoint(), append(quick, "-n", "-k", key, "--", module(t, "worker.cjs", tt.text))...)
			p.Says(p.Stdout, "ready")
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			switch tt.code {
			case -1:
				p.Signal(syscall.SIGKILL)
				programs.CheckEndsBefore(t, client, key, lease)
				return
			case 2:
				if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
					t.Fatal(err)
				}
			default:
				p.Signal(syscall.SIGTERM)
			}
			if code := p.Code(); code != tt.code || !strings.Contains(p.Stderr.String(), tt.says) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			programs.AwaitTreeEnd(t, key)
			programs.CheckFree(t, client, key)
		})
	}
}

// TestNodeFlood: a module that sends 30 MB costs no memory, its lease is renewed meanwhile, and its
// answers are heard.
func TestNodeFlood(t *testing.T) {
	nodes(t)
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		message string
		bytes   int
	}{
		"long":    {`'x'.repeat(1000000)`, 30e6},
		"members": {`Object.fromEntries(Array.from({length: 50000}, (_, i) => ['k' + i, i]))`, 30e6},
		"short":   {`{a: 1}`, 1e6},
	} {
		t.Run(name, func(t *testing.T) {
			p := programs.Locker(t, s.Endpoint(), "-t", "60", "-r", "0.2", "-n", "-v", "-k", "/node/flood", "--", module(t, "worker.cjs", answers+`
				const message = `+tt.message+`, size = JSON.stringify(message).length + 1;
				let sent = 0;
				const more = () => { if (sent > `+strconv.Itoa(tt.bytes)+`) return console.log('sent'); sent += size; process.send(message, more) };
				then = n => { if (n == 1) console.log('ready'); if (n == 2) for (let i = 0; i < 10; i++) more(); }`))
			p.Says(p.Stdout, "ready")
			before := memory(t, p.Cmd.Process.Pid, "VmRSS")
			p.Says(p.Stdout, strings.Repeat("sent\n", 10))
			p.Renews(1)
			if grown := memory(t, p.Cmd.Process.Pid, "VmHWM") - before; grown >= 8<<10 {
				t.Errorf("it has grown by %d KiB", grown)
			} else {
				t.Logf("it has grown by %d KiB", grown)
			}
			p.Signal(syscall.SIGTERM)
			if code := p.Code(); code != 143 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// memory returns a line of /proc/PID/status, in KiB.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	kib, err := strconv.Atoi(strings.Fields(statusOf(t, pid, name))[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// TestChannelOfOurOwn: etcdlocker that a Node.js process has forked has a channel itself. The
// command gets neither the variables nor the descriptor, and a module gets another one.
func TestChannelOfOurOwn(t *testing.T) {
	nodes(t)
	s := etcdtest.Shared(t)
	parent := module(t, "parent.cjs", `const [program, ...args] = process.argv.slice(2);
		require('child_process').spawn(program, args, {stdio: ['inherit', 'inherit', 'inherit', 'ipc']}).on('exit', code => process.exit(code))
			.on('message', m => console.log('message', JSON.stringify(m)));`)
	fork := func(args ...string) *programs.Run {
		t.Helper()
		args = append([]string{parent, programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/node/ours"}, args...)
		return programs.StartCommand(t, nil, exec.Command("node", args...))
	}
	sockets := `env | grep -E '^(NODE_CHANNEL|WATCHDOG_PID)'; ls -l /proc/self/fd | grep -c 'socket:'; true`
	for _, unguarded := range [][]string{nil, {"--unguarded"}} {
		p := fork(append(unguarded, "--", "sh", "-c", sockets)...)
		if code := p.Code(); code != 0 || p.Stdout.String() != "0\n" {
			t.Errorf("%v: exit code %d, %q, %q", unguarded, code, p.Stdout, p.Stderr)
		}
	}
	p := fork("-r", "0.1", "-n", "--", module(t, "worker.cjs", answers+`then = n => { if (n == 2) process.exit(6) }`))
	if code := p.Code(); code != 6 || p.Stdout.String() != "" {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	// Without a guard it is the same.
	p = programs.Locker(t, s.Endpoint(), "-r", "0.1", "--unguarded", "-n", "-k", "/node/ours", "--", module(t, "worker.cjs", answers+`then = n => { if (n == 2) process.exit(6) }`))
	if code := p.Code(); code != 6 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestNodeIsNotThere: it is said before etcd is touched.
func TestNodeIsNotThere(t *testing.T) {
	s, worker := etcdtest.Start(t), module(t, "worker.js", "")
	for name, tt := range map[string]struct {
		vars, args []string
	}{
		"in PATH":       {[]string{"PATH=" + t.TempDir()}, nil},
		"by name":       {nil, []string{"--node-path", "no-such-node"}},
		"by path":       {nil, []string{"--node-path", "/no/such/node"}},
		"no executable": {nil, []string{"--node-path", module(t, "node", "")}},
	} {
		p := programs.Start(t, tt.vars, "etcdlocker", append(append([]string{"-e", s.Endpoint(), "-n", "-k", "/x"}, tt.args...), worker)...)
		if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), "cannot run") ||
			strings.Contains(p.Stderr.String(), "--node-path") != (name == "in PATH") {
			t.Errorf("%s: exit code %d, %q", name, code, p.Stderr)
		}
	}
	s.Empty(t)
}

// TestNodeStandsStill: what was stopped has the whole time again when it goes on: in doubt, and by
// Ctrl-Z. The module answers two pings and no more.
func TestNodeStandsStill(t *testing.T) {
	t.Parallel()
	nodes(t)
	s := etcdtest.Start(t)
	text := `let n = 0; process.on('message', m => { if (++n <= 2) process.send({pong: m.ping}); if (n == 3) console.log('ready') })`
	// endsAfter expects that it is ended for its silence, but not before the limit has passed since
	// it went on.
	endsAfter := func(t *testing.T, p *programs.Run, wentOn time.Time, limit time.Duration) {
		t.Helper()
		code := p.Code()
		if took := time.Since(wentOn); code != 4 || took < limit {
			t.Errorf("exit code %d after %v, %q", code, took, p.Stderr)
		}
	}
	t.Run("by hand", func(t *testing.T) {
		t.Parallel()
		p := programs.Locker(t, s.Endpoint(), "-v", "-t", "6", "-r", "0.5", "-n", "-k", "/still/hand", "--", module(t, "worker.cjs", text))
		p.Says(p.Stdout, "ready")
		module := modulePID(t, "/still/hand")
		var last time.Time
		for range 3 { // together about as long as the limit
			p.Signal(syscall.SIGTSTP)
			stopped(t, module, true)
			stopped(t, p.Cmd.Process.Pid, true)
			time.Sleep(2 * time.Second) // how long it stands still
			last = time.Now()
			p.Signal(syscall.SIGCONT)
			stopped(t, module, false)
			p.Renews(1)
		}
		endsAfter(t, p, last, 6*time.Second)
	})
	t.Run("in doubt", func(t *testing.T) {
		t.Parallel()
		link := etcdtest.NewLink(t, s.Endpoint())
		p := programs.Locker(t, link.Endpoint(), "-v", "-t", "8", "-r", "0.5", "--grace", "6", "--on-doubt", "freeze", "-n", "-k", "/still/doubt", "--", module(t, "worker.cjs", text))
		p.Says(p.Stdout, "ready")
		link.Silence()
		p.Says(p.Stderr, "stands still")
		time.Sleep(3 * time.Second) // how long it stands still
		last := time.Now()
		link.Restore()
		endsAfter(t, p, last, 8*time.Second)
		if !strings.Contains(p.Stderr.String(), "the command goes on") {
			t.Error(p.Stderr)
		}
	})
}

// modulePID returns the process id of the one process of a lock's command.
func modulePID(t *testing.T, key string) (pid int) {
	t.Helper()
	for pid = range programs.Marked("ETCD_LOCK_KEY=" + key) {
	}
	if pid == 0 {
		t.Fatal("no module")
	}
	return pid
}

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/duration"
	"github.com/etcdlock/etcdlock/internal/endpoint"
	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/pulse"
	"github.com/etcdlock/etcdlock/internal/supervise"
	"github.com/etcdlock/etcdlock/internal/validity"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// options is what flags and environment said.
type options struct {
	help, version, verbose bool

	keys                keys
	mode                etcdlock.Mode // of all
	id, why             string
	ttl, refresh, grace time.Duration // refresh and grace: the default filled in
	try                 bool
	wait                time.Duration // -1: without end
	conflictCode        int
	holdAtLeast         time.Duration
	killAfter           time.Duration
	orphans             supervise.Orphans
	freeze              bool // in doubt, instead of ending the command
	ignored             []syscall.Signal
	pulse               pulseOptions
	noTimers            bool // if the kernel has none
	keepCredentials     bool // the command gets them as well
	unguarded           bool // for measurements

	etcd           endpoint.Options
	embedded       string // the directory of the embedded etcd; empty: another etcd
	connectTimeout time.Duration

	command []string
}

// A usageError is the user's: a sentence, and the way out.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), hint}
}

// given is a setting as text, with the name under which the user gave it.
type given struct {
	name, value string
}

// parser turns words and variables into options.
type parser struct {
	flags  *pflag.FlagSet
	getenv func(string) string
	o      options

	node, orphans, doubt                  string
	keys                                  []string
	slots                                 string
	id, why, ttl, refresh                 string
	grace, wait, hold, killAfter, connect string
	conflict, watchdog                    string
	ignored                               []string
}

// defaultConnectTimeout is how long etcd's first answer is waited for.
const defaultConnectTimeout = 5 * time.Second

func newParser(getenv func(string) string) *parser {
	p := &parser{flags: pflag.NewFlagSet("etcdlocker", pflag.ContinueOnError), getenv: input(getenv)}
	f := p.flags
	f.SetInterspersed(false) // what follows the command is the command's
	f.Usage = func() {}
	f.BoolVarP(&p.o.help, "help", "h", false, "")
	f.BoolVar(&p.o.version, "version", false, "")
	f.BoolVarP(&p.o.verbose, "verbose", "v", false, "")
	f.StringArrayVarP(&p.keys, "key", "k", nil, "")
	f.VarPF(modeFlag{&p.o.mode, etcdlock.Shared, etcdlock.Exclusive}, "shared", "s", "").NoOptDefVal = "true"
	f.VarPF(modeFlag{&p.o.mode, etcdlock.Exclusive, etcdlock.Shared}, "exclusive", "x", "").NoOptDefVal = "true"
	f.StringVar(&p.slots, "slots", "", "")
	f.StringVarP(&p.id, "id", "i", "", "")
	f.StringVar(&p.why, "why", "", "")
	f.StringVarP(&p.ttl, "ttl", "t", "", "")
	f.StringVarP(&p.refresh, "refresh", "r", "", "")
	f.StringVarP(&p.node, "node", "n", "", "")
	f.Lookup("node").NoOptDefVal = "true"
	f.StringVar(&p.o.pulse.nodePath, "node-path", "", "")
	f.StringVar(&p.watchdog, "watchdog", "", "")
	f.StringVar(&p.o.pulse.pulseCmd, "pulse-cmd", "", "")
	f.BoolVar(&p.o.try, "try", false, "")
	f.StringVar(&p.wait, "wait", "", "")
	f.StringVar(&p.conflict, "conflict-exit-code", "", "")
	f.StringVar(&p.hold, "hold-at-least", "", "")
	f.StringVar(&p.grace, "grace", "", "")
	f.StringVar(&p.killAfter, "kill-after", "", "")
	f.StringVar(&p.orphans, "orphans", "leave", "")
	f.StringVar(&p.doubt, "on-doubt", "kill", "")
	f.StringArrayVar(&p.ignored, "ignore-signal", nil, "")
	f.StringVar(&p.connect, "connect-timeout", "", "")
	f.BoolVar(&p.o.noTimers, "no-kernel-timers", false, "")
	f.BoolVar(&p.o.keepCredentials, "keep-credentials", false, "")
	f.BoolVar(&p.o.unguarded, "unguarded", false, "")
	p.o.etcd.AddFlags(f)
	return p
}

// parseOptions reads the words after the program's name, and the environment.
func parseOptions(args []string, getenv func(string) string) (*options, error) {
	p := newParser(getenv)
	if err := p.flags.Parse(args); err != nil {
		return nil, usagef("etcdlocker --help lists the options; what belongs to the command goes after --", "%w", err)
	}
	if p.o.help || p.o.version {
		return &p.o, nil
	}
	p.o.command = p.flags.Args()
	if err := p.separated(args[:len(args)-len(p.o.command)]); err != nil {
		return nil, err
	}
	for _, step := range []func() error{p.locks, p.holder, p.times, p.life, p.pulse, p.server} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &p.o, nil
}

// noKey returns the error of a command line without a key.
func (p *parser) noKey() error {
	way := "name it with -k, or in ETCD_LOCK_KEY, where that of an etcdlocker above this one does not count"
	command := p.o.command
	switch i := slices.IndexFunc(command, isKey); {
	case i > 0 && p.flags.ArgsLenAtDash() < 0: // else it is the command's
		way = fmt.Sprintf("%s stands after the command, which begins with %s here: write options before it, and a value that an option can do without with =, as in --embedded=DIR",
			plain.Shell(command[i]), plain.Shell(command[0]))
	case len(command) > 0 && (command[0] == "help" || command[0] == "version"):
		way = fmt.Sprintf("etcdlocker --%s is what you may mean; else %s", command[0], way)
	}
	return usagef(way, "no key: which lock is meant?")
}

// isKey reports whether a word looks like --key, or begins with -k.
func isKey(word string) bool {
	return word == "--key" || strings.HasPrefix(word, "--key=") || strings.HasPrefix(word, "-k")
}

// separated returns an error if the value of an option is the word behind it, and that is the --
// before the command, or another option: before it stood a variable that is empty, and all jobs
// with that mistake would share one lock.
func (p *parser) separated(words []string) error {
	for i := 0; i < len(words)-1; i++ {
		f := p.takesNext(words[i])
		if f == nil {
			continue
		}
		i++
		is := "an option"
		switch {
		case words[i] == "--":
			is = "which stands before a command"
		case !p.isOption(words[i], f):
			continue
		}
		value := withoutSecret(words[i], f.Name)
		return usagef(fmt.Sprintf("is a variable before it empty? write it in quotes, as in \"$KEY\"; if %s is what you mean, --%s=%s", value, f.Name, plain.Shell(value)),
			"--%s: its value is %s, %s", f.Name, value, is)
	}
	return nil
}

// isOption reports whether a word behind an option is another one. Of those with their value in
// the same word, as -t5, a password and a purpose may look like one.
func (p *parser) isOption(word string, before *pflag.Flag) bool {
	name, _, _ := strings.Cut(word, "=")
	if long, isLong := strings.CutPrefix(name, "--"); isLong {
		return p.flags.Lookup(long) != nil
	}
	return len(name) > 1 && name[0] == '-' && p.flags.ShorthandLookup(name[1:2]) != nil &&
		(len(word) == 2 || !isSecret(before.Name) && before.Name != "why")
}

// isSecret reports whether the value of an option is not for others to see.
func isSecret(option string) bool { return option == "password" || option == "user" }

// withoutSecret returns a word behind an option as it may be shown.
func withoutSecret(word, before string) string {
	name, _, has := strings.Cut(word, "=")
	if has && (isSecret(before) || isSecret(strings.TrimPrefix(name, "--"))) {
		return name + "=..."
	}
	return word
}

// takesNext returns the option of a word whose value is the next word, or nil. A short
// option whose value is in the same word ends it.
func (p *parser) takesNext(word string) *pflag.Flag {
	if long, isLong := strings.CutPrefix(word, "--"); isLong {
		if f := p.flags.Lookup(long); f != nil && f.NoOptDefVal == "" {
			return f
		}
		return nil
	}
	for i := 1; i < len(word); i++ {
		f := p.flags.ShorthandLookup(word[i : i+1])
		switch last := i == len(word)-1; {
		case f == nil, f.NoOptDefVal == "" && !last:
			return nil
		case f.NoOptDefVal == "":
			return f
		}
	}
	return nil
}

// text returns what a flag or else a variable says. An empty variable says nothing.
func (p *parser) text(flag, value, variable string) given {
	if !p.flags.Changed(flag) && variable != "" {
		if v := p.getenv(variable); v != "" {
			return given{variable, v}
		}
	}
	return given{"--" + flag, value}
}

// sharedVariable says that the lock is to be shared whose key comes from the environment, and
// slotsVariable that it is a semaphore: that of an option is another one.
const (
	sharedVariable = "ETCD_LOCK_SHARED"
	slotsVariable  = "ETCD_LOCK_SLOTS"
	whyVariable    = "ETCD_LOCK_WHY"
)

// A modeFlag sets a mode. Of several flags the last one counts.
type modeFlag struct {
	of        *etcdlock.Mode
	is, isNot etcdlock.Mode // with yes, and with no
}

func (m modeFlag) String() string { return "" }
func (m modeFlag) Type() string   { return "bool" }

func (m modeFlag) Set(value string) error {
	is, err := yes(given{"--" + m.is.String(), value})
	if *m.of = m.isNot; is {
		*m.of = m.is
	}
	return err
}

// yes reads an answer to the question whether something is wanted.
func yes(g given) (bool, error) {
	switch strings.ToLower(g.value) {
	case "", "0", "false", "no", "off":
		return false, nil
	case "1", "true", "yes", "on":
		return true, nil
	}
	return false, usagef("it is one of 1 and 0, true and false, yes and no", "%s: %q says neither yes nor no", g.name, g.value)
}

// mostListed bounds the list of the locks in the environment of the command.
const mostListed = 64 << 10

func (p *parser) locks() error {
	name := "--key"
	if p.o.keys = p.keys; len(p.keys) == 0 {
		name = "ETCD_LOCK_KEY"
		if key := p.getenv(name); key != "" {
			p.o.keys = keys{key}
		}
	}
	if len(p.o.keys) == 0 {
		return p.noKey()
	}
	slices.Sort(p.o.keys)
	for i, key := range p.o.keys {
		if err := checkKey(given{name, key}); err != nil {
			return err
		}
		if i > 0 && key == p.o.keys[i-1] {
			return usagef("name each lock once", "--key: %q is given twice", key)
		}
	}
	if err := p.modes(name == "ETCD_LOCK_KEY"); err != nil {
		return err
	}
	list := p.o.keys.list(func(key string) heldLock { return newHeldLock(key, math.MaxInt64, p.o.mode, mode.MaxSlots-1) })
	if len(list) > mostListed {
		return usagef("use fewer or shorter ones", "--key: %d keys that take %d bytes together, as the command finds them, at most %d are possible",
			len(p.o.keys), len(list), mostListed)
	}
	return nil
}

// modes reads how the locks are to be held, from options or, where the key does, from variables.
func (p *parser) modes(byVariables bool) (err error) {
	slots, other := given{"--slots", p.slots}, ""
	for _, flag := range []string{"shared", "exclusive"} {
		if p.flags.Changed(flag) {
			other = "--" + flag
		}
	}
	isSemaphore := p.flags.Changed("slots")
	if byVariables && !isSemaphore && other == "" {
		shares, err := yes(given{sharedVariable, p.getenv(sharedVariable)})
		if err != nil {
			return err
		}
		if shares {
			p.o.mode, other = etcdlock.Shared, sharedVariable
		}
		slots = given{slotsVariable, p.getenv(slotsVariable)}
		isSemaphore = slots.value != ""
	}
	switch {
	case !isSemaphore:
		return nil
	case other != "":
		return usagef("use one of them", "%s and %s are two ways to hold the lock", other, slots.name)
	}
	n, err := strconv.ParseUint(slots.value, 10, 16)
	if err != nil || n < 1 || n > mode.MaxSlots {
		return usagef("say how many may hold the lock at a time; 1 is the exclusive lock",
			"%s: %q is not a number from 1 to %d", slots.name, slots.value, mode.MaxSlots)
	}
	p.o.mode = etcdlock.Slots(int(n))
	return nil
}

func checkKey(key given) error {
	switch {
	case key.value == "":
		return usagef("give it at least one byte", "%s: the lock's key is empty", key.name)
	case len(key.value) > etcdlock.MaxKeyBytes:
		return usagef("use a shorter one, a digest of it for example", "%s: a key of %d bytes, at most %d are possible",
			key.name, len(key.value), etcdlock.MaxKeyBytes)
	case wire.ReservedEnd(key.value) != "":
		return usagef("choose another end", "%s: %q ends in %s, which is kept for another lock's line",
			key.name, key.value, wire.ReservedEnd(key.value))
	}
	return nil
}

func (p *parser) holder() error {
	id := p.text("id", p.id, "ETCD_LOCK_ID")
	if id.value == "" {
		host, err := os.Hostname()
		if err != nil {
			return usagef("give one with -i", "no id, and the host name is not known: %w", err)
		}
		id = given{"the host name", strings.ToValidUTF8(host, "?")}
	}
	switch {
	case len(id.value) > etcdlock.MaxIDBytes:
		return usagef("use a shorter one", "%s: an id of %d bytes, at most %d are possible", id.name, len(id.value), etcdlock.MaxIDBytes)
	case !utf8.ValidString(id.value):
		return usagef("an id is a label for people, the key may be any bytes", "%s: the id %q is not UTF-8", id.name, id.value)
	}
	p.o.id = id.value
	return p.purpose()
}

// mostWhy is how many bytes a purpose may have: with the id it is in a value that thousands read.
const mostWhy = 256

// purpose reads why the lock is wanted.
func (p *parser) purpose() error {
	why := p.text("why", p.why, whyVariable)
	switch {
	case len(why.value) > mostWhy:
		return usagef("use fewer words", "%s: %d bytes, at most %d are possible", why.name, len(why.value), mostWhy)
	case !utf8.ValidString(why.value), strings.ContainsFunc(why.value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return usagef("write one line of text", "%s: %q is not one line of UTF-8", why.name, why.value)
	}
	p.o.why = why.value
	return nil
}

func (p *parser) times() error {
	ttl := p.text("ttl", p.ttl, "ETCD_LOCK_TTL")
	if !p.flags.Changed("ttl") && ttl.value == "" {
		ttl.value = "15"
	}
	var err error
	const ttlHint = "etcd counts whole seconds: give it 1 to 86400 of them, as in 15; or add a unit, as in 90s, 5m, 2h"
	if p.o.ttl, err = parseDuration(ttl, ttlHint); err != nil {
		return err
	}
	if p.o.ttl < validity.MinTTL || p.o.ttl > validity.MaxTTL || p.o.ttl%time.Second != 0 {
		return usagef(ttlHint, "%s: a TTL of %q is not possible", ttl.name, ttl.value)
	}
	if p.o.grace, err = p.duration("grace", p.grace, validity.DefaultGrace(p.o.ttl)); err != nil {
		return err
	}
	p.o.grace = max(p.o.grace, validity.NoGrace)
	refresh := p.text("refresh", p.refresh, "ETCD_LOCK_REFRESH")
	if refresh.value != "" || p.flags.Changed("refresh") {
		if p.o.refresh, err = parseDuration(refresh, duration.Hint); err != nil {
			return err
		}
	}
	if p.o.refresh == 0 {
		refresh.name = "--refresh"
		p.o.refresh = validity.DefaultRefresh(p.o.ttl, p.o.grace)
	}
	if err := validity.Check(p.o.ttl, p.o.refresh, p.o.grace); err != nil {
		return usagef("renew more often, give less grace, or take a longer TTL", "%s, --grace and %s do not fit: %w", refresh.name, ttl.name, err)
	}
	p.o.wait = -1
	if p.flags.Changed("wait") {
		if p.o.wait, err = p.duration("wait", p.wait, 0); err != nil {
			return err
		}
	}
	p.o.try = p.o.try || p.o.wait == 0
	if p.o.try && p.o.wait > 0 {
		return usagef("use one of them", "--try does not wait, and --wait does")
	}
	if p.o.holdAtLeast, err = p.duration("hold-at-least", p.hold, 0); err != nil {
		return err
	}
	if p.o.killAfter, err = p.duration("kill-after", p.killAfter, 0); err != nil {
		return err
	}
	if p.o.connectTimeout, err = p.duration("connect-timeout", p.connect, defaultConnectTimeout); err != nil {
		return err
	}
	if p.o.connectTimeout == 0 {
		return usagef("give etcd some time", "--connect-timeout: no time at all")
	}
	return nil
}

func (p *parser) duration(flag, value string, def time.Duration) (time.Duration, error) {
	if !p.flags.Changed(flag) {
		return def, nil
	}
	return parseDuration(given{"--" + flag, value}, duration.Hint)
}

// parseDuration reads a number of seconds, fractions allowed, or one of Go's durations. The hint
// says how to write it.
func parseDuration(g given, hint string) (time.Duration, error) {
	d, err := duration.Parse(g.value)
	if err != nil {
		return 0, usagef(hint, "%s: %q is %w", g.name, g.value, err)
	}
	return d, nil
}

func (p *parser) life() error {
	switch p.orphans {
	case "leave":
		p.o.orphans = supervise.LeaveOrphans
	case "wait":
		p.o.orphans = supervise.AwaitOrphans
	case "kill":
		p.o.orphans = supervise.KillOrphans
	default:
		return usagef("it is one of leave, wait and kill", "--orphans: %q is not known", p.orphans)
	}
	switch p.doubt {
	case "kill", "freeze":
		p.o.freeze = p.doubt == "freeze"
	default:
		return usagef("it is one of kill and freeze", "--on-doubt: %q is not known", p.doubt)
	}
	for _, name := range p.ignored {
		sig, ok := ignorable(name)
		if !ok {
			return usagef("name a signal that is passed on to the command, or TSTP, TTIN, TTOU or PIPE", "--ignore-signal: %q cannot be ignored", name)
		}
		p.o.ignored = append(p.o.ignored, sig)
	}
	p.o.conflictCode = exitNotAcquired
	if p.flags.Changed("conflict-exit-code") {
		n, err := strconv.ParseUint(p.conflict, 10, 8)
		if err != nil {
			return usagef("give an exit code, such as 75", "--conflict-exit-code: %q is not a number from 0 to 255", p.conflict)
		}
		p.o.conflictCode = int(n)
	}
	return nil
}

func (p *parser) pulse() (err error) {
	o := &p.o.pulse
	node := p.text("node", p.node, "ETCD_CHILD_IS_NODE")
	if o.node, err = yes(node); err != nil {
		return err
	}
	var ways []string
	if o.node {
		ways = append(ways, node.name)
	}
	for _, flag := range []string{"watchdog", "pulse-cmd"} {
		if p.flags.Changed(flag) {
			ways = append(ways, "--"+flag)
		}
	}
	switch {
	case len(ways) > 1:
		return usagef("use one of them", "%s and %s are two ways to see whether the command is well", ways[0], ways[1])
	case p.flags.Changed("node-path") && !o.node:
		return usagef("add -n if the command is a module", "--node-path is for Node.js modules")
	case p.flags.Changed("node-path") && o.nodePath == "":
		return usagef("leave it out for the node in PATH", "--node-path: it is empty")
	case len(ways) == 0:
		return nil
	case len(p.o.command) == 0:
		return usagef("name the command, or leave the option out", "%s: there is no command to look after", ways[0])
	}
	if p.flags.Changed("watchdog") {
		if !guard.Exists {
			return usagef("use -n", "--watchdog: it needs Linux")
		}
		const hint = "give it a time from one second up to the TTL, as in 5 or 5s, or leave it out"
		if o.watchdog, err = parseDuration(given{"--watchdog", p.watchdog}, hint); err != nil {
			return err
		}
		if o.watchdog < time.Second || o.watchdog > p.o.ttl {
			return usagef(hint, "--watchdog: %v is not possible with a TTL of %v", o.watchdog, p.o.ttl)
		}
	}
	if p.flags.Changed("pulse-cmd") {
		switch {
		case strings.TrimSpace(o.pulseCmd) == "":
			return usagef("name a command for the shell", "--pulse-cmd: it is empty")
		case p.o.unguarded || !guard.Exists:
			return usagef("use --watchdog or -n", "--pulse-cmd: it needs a guard process, which is not there")
		}
	}
	return nil
}

func (p *parser) server() (err error) {
	if p.o.embedded, err = p.o.etcd.Embedded(); p.o.embedded != "" || err != nil {
		return err
	}
	p.o.etcd.FromEnv(p.getenv)
	if !p.flags.Changed("connect-timeout") {
		p.o.connectTimeout, err = p.o.etcd.ConnectTimeout(defaultConnectTimeout)
	}
	return err
}

// hintOf returns the way out that comes with an error, if one does.
func hintOf(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.hint
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return usage.hint
	}
	var problem *pulse.Problem
	if errors.As(err, &problem) {
		return problem.Hint
	}
	var option *endpoint.OptionError
	if errors.As(err, &option) {
		return option.Hint
	}
	return ""
}

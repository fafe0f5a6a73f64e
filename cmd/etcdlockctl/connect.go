package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/endpoint"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// connection is what the options say of how etcd is reached.
type connection struct {
	etcd    endpoint.Options
	timeout time.Duration

	embedded string           // the directory of the embedded etcd; empty: another etcd
	client   *clientv3.Client // once dial has returned it
}

// etcdUsage says what the options are for, that etcdlocker has as well.
var etcdUsage = map[string]string{
	"etcd":                     "etcd's endpoints",
	"embedded":                 "the etcd of this machine and user that etcdlocker --embedded uses, if it runs",
	"cacert":                   "the authority that etcd's certificate is checked with",
	"cert":                     "the client's certificate",
	"cert-key":                 "its key",
	"insecure-skip-tls-verify": "do not check etcd's certificate",
	"insecure-transport":       "accept that all is sent in the clear",
	"user":                     "name, or name:password",
	"password":                 "password of --user; everybody can see it here",
	"password-file":            "a file with the password",
	"auth-jwt-token-file":      "a file with a token",
	"discovery-srv":            "a domain whose SRV records name etcd",
	"discovery-srv-name":       "suffix of their service name",
	"insecure-discovery":       "take endpoints without TLS from SRV records",
	"keepalive-time":           "time between pings of a silent connection",
	"keepalive-timeout":        "how long the answer to a ping may take",
}

func (c *connection) addFlags(f *pflag.FlagSet) {
	c.etcd.AddFlags(f)
	f.VisitAll(func(flag *pflag.Flag) {
		if usage, ok := etcdUsage[flag.Name]; ok {
			flag.Usage = usage
		}
	})
	durationVar(f, &c.timeout, "timeout", 5*time.Second, "how long etcd may take to answer")
}

// flagUsages is what the help says of flags, for a terminal of 80 columns: --embedded is shown as
// it is typed.
func flagUsages(f *pflag.FlagSet) string {
	if embedded := f.Lookup("embedded"); embedded != nil {
		defer func(own string) { embedded.NoOptDefVal = own }(embedded.NoOptDefVal)
		embedded.NoOptDefVal = ""
	}
	return strings.Replace(f.FlagUsagesWrapped(80), "--embedded DIR  ", "--embedded[=DIR]", 1)
}

// dial returns a client. Nothing is sent yet.
func (c *connection) dial(ctx context.Context) (*clientv3.Client, error) {
	if c.timeout <= 0 {
		return nil, fmt.Errorf("--timeout: %v is not a positive time (%w)", c.timeout, errUsage)
	}
	if err := c.find(ctx); err != nil {
		return nil, err
	}
	config, err := c.etcd.Config()
	if err != nil {
		return nil, err
	}
	c.client, err = c.etcd.Dial(ctx, config, c.timeout)
	return c.client, err
}

// find finds out which etcd is meant.
func (c *connection) find(ctx context.Context) (err error) {
	if c.embedded, err = c.etcd.Embedded(); err != nil {
		return err
	}
	if c.embedded == "" {
		c.etcd.FromEnv(os.Getenv)
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("it %w %v", errLate, c.timeout))
	defer cancel()
	c.etcd.Endpoints, err = serverdir.Running(ctx, c.embedded)
	switch {
	case errors.Is(err, serverdir.ErrNoServer) && strings.HasPrefix(c.embedded, "~"):
		return advise(err, `the ~ stands for itself there: write --embedded="$HOME"/..., or leave the = away for the default directory`)
	case errors.Is(err, serverdir.ErrNoServer):
		return advise(err, c.startIt())
	case errors.Is(err, errLate):
		return advise(err, stalled)
	}
	return err
}

// startIt is what to do about an embedded etcd that does not run.
func (c *connection) startIt() string {
	return "etcdlocker" + c.etcd.GivenEmbedded() + " starts it when it wants a lock; etcdlockctl serve --dir=" + plain.Shell(c.embedded) + " starts it by itself"
}

// noListener is in the error of a connection to a server that has ended.
const noListener = "connect: "

// stalled is what to do about an embedded etcd that does not answer.
const stalled = serverdir.LookAtIt + "; --timeout waits longer"

// errLate is in the cause of a context that has ended because etcd was silent.
var errLate = errors.New("did not answer within")

func (c *connection) late(limit time.Duration) error {
	return fmt.Errorf("%v %w %v", &c.etcd, errLate, limit)
}

// sayAway warns that etcd does not answer, and says what comes of that. Reason may be nil.
func sayAway(reason error, then string) {
	says := "etcd does not answer"
	if reason != nil {
		says += " (" + plain.Reason(reason.Error()) + ")"
	}
	fmt.Fprintln(os.Stderr, "etcdlockctl: warning:", plain.Line(says+"; "+then))
}

func sayBack() { fmt.Fprintln(os.Stderr, "etcdlockctl: etcd answers again") }

// within returns a context for one question to etcd.
func (c *connection) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return c.longer(ctx, 0)
}

// longer is within for a question that takes more time than the answer does.
func (c *connection) longer(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	limit := c.timeout + by
	return context.WithTimeoutCause(ctx, limit, c.late(limit))
}

// look has a client ask something of etcd.
func (c *connection) look(ctx context.Context, ask func(ctx context.Context, client *clientv3.Client) error) error {
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := c.within(ctx)
	defer cancel()
	return c.explain(ctx, ask(ctx, client))
}

// explain adds a way out to what etcd has said.
func (c *connection) explain(ctx context.Context, err error) error {
	refusal := endpoint.Refusal(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return advise(err, "the user needs to read the key and all that begins with key/, or the whole prefix; pause and resume write there as well")
	case errors.Is(err, rpctypes.ErrNoSpace):
		return advise(err, endpoint.MakeRoom)
	case refusal != "":
		return advise(err, refusal)
	case errors.Is(context.Cause(ctx), errLate):
		return c.unanswered(context.Cause(ctx))
	case retry.Code(err) == codes.Unavailable && !errors.Is(err, admin.ErrUnknownOutcome):
		return c.unanswered(err)
	}
	return err
}

// unanswered adds a way out to the error of a request that etcd has not answered, and, if that is
// no more than that it took too long, why etcd could not be reached.
func (c *connection) unanswered(err error) error {
	hint := "check that etcd runs and that -e and the TLS options fit; --timeout waits longer; --embedded finds the locks of etcdlocker --embedded"
	why := endpoint.Unreached(c.client)
	switch {
	case c.embedded != "" && why != nil && strings.Contains(why.Error(), noListener):
		hint = c.startIt()
	case c.embedded != "":
		hint = stalled
	}
	if why != nil && errors.Is(err, errLate) {
		err = fmt.Errorf("%w (%w)", err, why)
	}
	return advise(err, cmp.Or(endpoint.Misfit(err), hint))
}

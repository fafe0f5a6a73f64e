package main

const usage = `Usage: etcdlocker [options] [--] [command [argument...]]

Acquires a distributed lock on etcd, or several, runs a command while holding
it, and releases it when the command has ended. Without a command it holds the
lock until a signal comes, and prints the key and the fencing token, with
--slots the slot as well.

The command never runs when its lock may belong to somebody else: if the lease
cannot be renewed in time, the command and everything it started are asked to
end and then killed, all before the lock can go to another holder. On Linux a
guard process does so when etcdlocker itself is killed or stopped.

Options end at the first argument that is not an option, or at --. Each may also
come from the variable in brackets.

The lock:
  -k, --key KEY           the lock's key in etcd, any bytes, required; can be
                          given again: all these locks are held, and taken in
                          the order of their keys [ETCD_LOCK_KEY, one key]
  -s, --shared            hold the lock together with others that say so, and
                          beside nobody else; of -s and -x the last counts
                          [ETCD_LOCK_SHARED=1, where the key is that of
                          ETCD_LOCK_KEY]
  -x, --exclusive         hold it alone, which is the default
      --slots N           hold one of N slots of the lock, 2 to 1000 (1 is the
                          exclusive lock), in turn; others that give another N,
                          -s, -x or none of them fail at once, with code 1,
                          while it is in use [ETCD_LOCK_SLOTS=3, where the key
                          is that of ETCD_LOCK_KEY]
  -i, --id ID             what others see of the holder; default: the host name
                          [ETCD_LOCK_ID]
      --why TEXT          why the lock is wanted, for whoever looks: one line of
                          up to 256 bytes [ETCD_LOCK_WHY]
  -t, --ttl SECONDS       how long the lock outlives a holder that is gone;
                          whole seconds; default 15 [ETCD_LOCK_TTL]
  -r, --refresh SECONDS   time between renewals; default TTL/2
                          [ETCD_LOCK_REFRESH]
      --try               do not wait if somebody else holds the lock
      --wait DURATION     wait for the lock at most this long, counted from
                          etcd's first answer
      --conflict-exit-code N
                          exit code when --try or --wait does not get the lock
                          as somebody else has it, or the asker runs below the
                          holder; default 1; with 0, nothing is said of a lock
                          that is held, unless with -v
      --hold-at-least DURATION
                          keep the lock until so long after it was acquired,
                          even if the command ends earlier

The command:
      --grace DURATION    time from TERM to KILL when the lock is lost; default
                          TTL/4, at most 5s; the guard kills up to an eighth of
                          the TTL sooner if the command has more processes than
                          before
      --kill-after DURATION
                          told to stop, kill the command after this time;
                          default: wait for it
      --on-doubt kill|freeze
                          when renewals fail: at the grace before validity ends,
                          ask the command to end, or stop it until a renewal
                          succeeds; when validity ends, or sooner as above, it
                          is killed; default kill
      --orphans leave|wait|kill
                          what to do about background processes that the command
                          leaves; default leave
      --ignore-signal NAME
                          etcdlocker and the command ignore this signal, as they
                          do HUP under nohup; can be given again
      --keep-credentials  the command gets ETCDCTL_PASSWORD,
                          ETCDCTL_AUTH_JWT_TOKEN, and ETCDCTL_USER with a
                          password in it; else it does not
      --no-kernel-timers  run the command even if the kernel refuses its timers
                          (RLIMIT_SIGPENDING): with both etcdlocker and its
                          guard stopped, the command then runs on

Signs of life, one kind of them at most. If those that were asked for do not
come, the command is stopped and the lock released:
  -n, --node              the command is a Node.js module, run as node MODULE:
                          it is sent {ping: n} on its channel, at once and each
                          refresh interval, and answers {pong: n} within the TTL
                          [ETCD_CHILD_IS_NODE]
      --node-path PROGRAM
                          the node to run it with; default: the one in PATH
      --watchdog DURATION
                          the command sends READY=1 or WATCHDOG=1 to its
                          NOTIFY_SOCKET within the TTL, and then WATCHDOG=1
                          within each DURATION, as programs do under systemd;
                          from 1s up to the TTL
      --pulse-cmd 'CMD'   a shell runs CMD each refresh interval: it must
                          succeed first within the TTL from the start, and then
                          each time within the TTL; CMD shows in the process
                          list

etcd:
  -e, --etcd LIST         host, host:port or URL, several separated by commas
                          [ETCD_LOCK_HOST, ETCDCTL_ENDPOINTS]; default
                          localhost:2379
      --embedded[=DIR]    use the etcd of this machine and user, started when
                          needed
      --connect-timeout DURATION
                          until etcd first answers; default 5s, or
                          ETCDCTL_DIAL_TIMEOUT if that is longer or 0, which is
                          no limit
      --cacert FILE, --cert FILE, --cert-key FILE, --insecure-skip-tls-verify
                          TLS [ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY,
                          ETCDCTL_INSECURE_SKIP_TLS_VERIFY]
      --insecure-transport
                          accept endpoints without TLS though TLS is asked for,
                          or a password or a token goes to endpoints that DNS
                          names [ETCDCTL_INSECURE_TRANSPORT]
      --user NAME[:PASSWORD], --password PASSWORD, --password-file FILE
                          [ETCDCTL_USER, ETCDCTL_PASSWORD]; --password and
                          --user NAME:PASSWORD show in the process list, a file
                          or a variable does not
      --auth-jwt-token-file FILE
                          a token instead of user and password
                          [ETCDCTL_AUTH_JWT_TOKEN, the token itself]
      --discovery-srv DOMAIN, --discovery-srv-name NAME
                          find etcd by DNS [ETCDCTL_DISCOVERY_SRV,
                          ETCDCTL_DISCOVERY_SRV_NAME]
      --insecure-discovery=false
                          accept none but endpoints with TLS from DNS
                          [ETCDCTL_INSECURE_DISCOVERY]
      --keepalive-time DURATION, --keepalive-timeout DURATION
                          try a connection on which nothing came for so long,
                          and give it up after so long without an answer;
                          default 10s, which is the least, and 5s; a time of 0
                          tries none [ETCDCTL_KEEPALIVE_TIME,
                          ETCDCTL_KEEPALIVE_TIMEOUT]

  -v, --verbose           debug messages on stderr, and when each was said
  -h, --help              this text
      --version           the version

A DURATION is one of Go's (90s, 1m30s); wherever one is expected, a number alone
counts seconds.

The command finds the lock in its environment: ETCDLOCK_HELD_KEY,
ETCDLOCK_HELD_ID, ETCDLOCK_HELD_REV (the fencing token), ETCDLOCK_HELD_LEASE (in
hex), ETCDLOCK_HELD_MODE (exclusive, shared or slots), ETCDLOCK_HELD_SLOT (0 to
N-1, only with --slots; tokens grow within each slot, and those of who share a
lock are greater than all exclusive ones before) and ETCDLOCK_HELD_ENDPOINTS,
and key, id, token and endpoints also as ETCD_LOCK_KEY, ETCD_LOCK_ID,
ETCD_LOCK_REV and ETCD_LOCK_HOST. If there are several locks, sorted by key,
these are the first one's. ETCDLOCK_HELD lists all in JSON:
[{"key":"/a","token":48213,"mode":"exclusive"}], with "slot":1 where the mode is
slots. A key that is not UTF-8 is there as key_base64. An etcdlocker that the
command runs takes neither key nor id from there, nor ETCD_LOCK_SHARED or
ETCD_LOCK_SLOTS, and the host only before the default. CMD of --pulse-cmd finds
these, and the command's process id in ETCD_LOCK_PID.

Exit codes:
  the command's   it ended by itself
  128+N           it died of signal N, or etcdlocker was told to stop by TERM,
                  INT, QUIT or HUP
  1               the lock could not be acquired
  2               the lock was lost, or one of them
  3               the command could not be started, or could not be proved dead
  4               the command gave no sign of life in time, or a wrong one
  64              usage

Example:
  ETCD_LOCK_HOST=etcd:6666 etcdlocker -k /test/lock -t 120 -- mycmd arg
`

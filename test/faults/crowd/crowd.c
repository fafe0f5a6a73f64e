// Command crowd is what a heart starts when processes of Go would be too heavy: it forks.
//
//	crowd KIND N DIR NAME
//
// DIR is that of the trial and NAME that of the locker, as for a heart. All processes of one crowd
// beat into one file, in the format of package beat. KIND is one of:
//
//	many   N processes that ignore TERM and beat, every third in a session of its own
//	chain  a process that forks and exits, and so does its child, without pause
//	bomb   N processes at most, each of which forks until there are N, and is replaced by its child
//	fifo   a process that never sleeps, at the real-time priority N if it may have that
//	idle   N processes that do nothing and do not beat
//	busy   N processes that never sleep and do not beat
//
// A crowd ends by itself when the trial is over: there is a file DIR/finish, or no DIR any more.
// Without that it ends after two minutes, and one that never sleeps at a real-time priority sleeps
// after 20 seconds.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ULL
#define MOST 4096

// What all processes of the crowd share, but for the beat.
struct common {
	_Atomic uint64_t looked; // when somebody looked last whether the trial is over
	_Atomic int over;
	_Atomic int slots[MOST]; // of a bomb: the process that has it, 0 for none
};

struct beat {
	_Atomic uint64_t first, last;
};

static struct common *common;
static struct beat *heart;
static char dir[4000], finish[4096];
static uint64_t limit;

static void fail(const char *what) {
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(99);
}

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void nap(uint64_t ns) {
	struct timespec t = {ns / (1000 * MS), ns % (1000 * MS)};
	nanosleep(&t, NULL);
}

// beat says that this process runs now. Another one may have said something later meanwhile, which
// stays.
static void beat(void) {
	uint64_t t = now(), last = atomic_load(&heart->last);
	while (last < t && !atomic_compare_exchange_weak(&heart->last, &last, t))
		;
}

// over reports whether the crowd is to end. One of its processes looks, 50 times a second.
static int over(void) {
	uint64_t t = now(), looked = atomic_load(&common->looked);
	if (t > looked + 20 * MS && atomic_compare_exchange_strong(&common->looked, &looked, t) &&
	    (t > limit || access(finish, F_OK) == 0 || access(dir, F_OK) != 0))
		atomic_store(&common->over, 1);
	return atomic_load(&common->over);
}

static void begin_to_beat(const char *name) {
	char file[4096];
	snprintf(file, sizeof file, "%s/%s.%d", dir, name, getpid());
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	uint64_t both[2];
	both[0] = both[1] = now();
	if (fd < 0 || pwrite(fd, both, sizeof both, 0) != sizeof both)
		fail(file);
	heart = mmap(NULL, sizeof *heart, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (heart == MAP_FAILED)
		fail(file);
	close(fd);
}

// ready says that the crowd is complete.
static void ready(const char *name) {
	char file[4096];
	snprintf(file, sizeof file, "%s/ready.%s", dir, name);
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(file);
	close(fd);
}

static void many(int n, const char *name) {
	uint64_t pause = n * 250000ULL; // 4,000 beats a second, whoever of them it is
	int all[2]; // closed when all are there: those that beat make it slow to start the others
	if (pipe(all) < 0)
		fail("pipe");
	for (int i = 0; i < n; i++) {
		int pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid > 0)
			continue;
		if (i % 3 == 0)
			setsid();
		char none;
		close(all[1]);
		while (read(all[0], &none, 1) < 0 && errno == EINTR)
			;
		nap(pause * (i % 64) / 64);
		while (!over()) {
			beat();
			nap(pause);
		}
		_exit(0);
	}
	close(all[0]);
	close(all[1]);
	ready(name);
	while (!over()) {
		beat();
		nap(4 * MS);
	}
	while (wait(NULL) > 0)
		;
}

static void chain(const char *name) {
	signal(SIGCHLD, SIG_IGN);
	ready(name);
	while (!over()) {
		beat();
		int pid = fork();
		if (pid > 0)
			_exit(0);
		if (pid < 0)
			nap(MS);
	}
}

// claim takes a slot that nobody has, or whose process was killed, and returns its number. It tries
// some: -1 if each is taken.
static int claim(int n) {
	int start = rand() % n;
	for (int i = 0; i < 8; i++) {
		_Atomic int *slot = &common->slots[(start + i) % n];
		int had = atomic_load(slot);
		if ((had == 0 || (kill(had, 0) < 0 && errno == ESRCH)) && atomic_compare_exchange_strong(slot, &had, getpid()))
			return (start + i) % n;
	}
	return -1;
}

static void bomb(int n, const char *name) {
	signal(SIGCHLD, SIG_IGN);
	int slot = claim(n), complete = 0;
	uint64_t until = 0;
	while (!over() && atomic_load(&common->slots[slot]) == getpid()) {
		beat();
		int child = -1, next = claim(n), more = next >= 0;
		if (!more && !complete) {
			complete = 1;
			ready(name);
		}
		if (!more && now() > until) // in this one's place
			next = slot;
		if (next >= 0 && (child = fork()) < 0 && more)
			atomic_store(&common->slots[next], 0);
		if (child == 0) {
			slot = next;
			atomic_store(&common->slots[slot], getpid());
			srand(getpid());
			if (rand() % 4 == 0)
				setsid();
			until = now() + (3000 + rand() % 3000) * MS;
		} else if (child > 0) { // both say so: one of them may be killed before it can
			atomic_store(&common->slots[next], child);
			if (!more)
				_exit(0);
		}
		nap(100 * MS);
	}
}

static void fifo(int priority, const char *name) {
	struct sched_param p = {.sched_priority = priority};
	sched_setscheduler(0, SCHED_FIFO, &p); // launch has done it already, for all of the tree
	ready(name);
	nap(300 * MS); // the command gets to work before
	for (uint64_t end = now() + 20000 * MS; !over(); beat())
		if (now() > end)
			nap(4 * MS);
}

// beside is for what is not part of a command: it dies with the first process.
static void beside(int n, int spins, const char *name) {
	int parent = getpid();
	for (int i = 0; i < n; i++) {
		int pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			if (!spins)
				pause();
			else
				for (volatile int k = 0; k < 1000000; k++)
					;
		_exit(0);
	}
	ready(name);
	while (!over())
		nap(20 * MS);
}

int main(int argc, char **argv) {
	if (argc != 5)
		return fprintf(stderr, "usage: crowd KIND N DIR NAME\n"), 99;
	const char *kind = argv[1], *name = argv[4];
	int n = atoi(argv[2]);
	if (n < 1 || n > MOST)
		return fprintf(stderr, "crowd: %s is not a number from 1 to %d\n", argv[2], MOST), 99;
	snprintf(dir, sizeof dir, "%s", argv[3]);
	snprintf(finish, sizeof finish, "%s/finish", dir);
	limit = now() + 120000 * MS;
	common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (common == MAP_FAILED)
		fail("mmap");
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (strcmp(kind, "idle") == 0 || strcmp(kind, "busy") == 0) {
		beside(n, strcmp(kind, "busy") == 0, name);
		return 0;
	}
	begin_to_beat(name);
	if (strcmp(kind, "many") == 0)
		many(n, name);
	else if (strcmp(kind, "chain") == 0)
		chain(name);
	else if (strcmp(kind, "bomb") == 0)
		bomb(n, name);
	else if (strcmp(kind, "fifo") == 0)
		fifo(n, name);
	else
		return fprintf(stderr, "crowd: no kind is called %s\n", kind), 99;
	return 0;
}

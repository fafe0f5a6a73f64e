/* Stamp writes when it began and when it ended, in ns of CLOCK_MONOTONIC, to standard output, which
   should be a pipe: what is written to a file may wait for a disk. In between it waits for as many
   ms as its argument says, or, if that is the path of a pipe, until somebody has opened that. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long long began = now();
	if (argc != 2)
		return 64;
	if (argv[1][0] == '/') {
		if (open(argv[1], O_RDONLY) < 0)
			return 1;
	} else {
		long ms = atol(argv[1]);
		struct timespec t = {ms / 1000, ms % 1000 * 1000000};
		nanosleep(&t, NULL);
	}
	return printf("%lld %lld\n", began, now()) > 0 && fflush(stdout) == 0 ? 0 : 1;
}

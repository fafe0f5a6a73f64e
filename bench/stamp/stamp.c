/* Stamp writes when it began and when it ended, in ns of CLOCK_MONOTONIC, to the file that its
   first argument names. In between it waits for as many ms as the second one says, or, if that is
   the path of a pipe, until somebody has opened and closed that. */
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
	if (argc != 3)
		return 64;
	FILE *to = fopen(argv[1], "w");
	if (to == NULL)
		return 1;
	if (argv[2][0] == '/') {
		if (open(argv[2], O_RDONLY) < 0)
			return 1;
	} else {
		long ms = atol(argv[2]);
		struct timespec t = {ms / 1000, ms % 1000 * 1000000};
		nanosleep(&t, NULL);
	}
	fprintf(to, "%lld %lld\n", began, now());
	return fclose(to) == 0 ? 0 : 1;
}

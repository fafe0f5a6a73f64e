/* Starter runs the command that its arguments are when it is told to on descriptor 3, and says there
   when the command has ended: the least that a process between another one and a command does. */
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char c;
	if (argc < 2 || read(3, &c, 1) != 1)
		return 1;
	pid_t pid = vfork();
	if (pid == 0) {
		close(3);
		execv(argv[1], argv + 1);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, NULL, 0) == pid && write(3, &c, 1) == 1 ? 0 : 1;
}

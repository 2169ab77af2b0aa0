/* Loaded before a program's libc: the kernel's release is ODD_RELEASE, and the wall clock stands ODD_SECONDS off. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

int uname(struct utsname *name)
{
	const char *release = getenv("ODD_RELEASE");
	int status = syscall(SYS_uname, name);

	if (status == 0 && release != NULL) {
		snprintf(name->release, sizeof name->release, "%s", release);
		snprintf(name->version, sizeof name->version, "#1 SMP");
	}
	return status;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	const char *seconds = getenv("ODD_SECONDS");
	int status = syscall(SYS_clock_gettime, clock, now);

	if (status == 0 && clock == CLOCK_REALTIME && seconds != NULL)
		now->tv_sec += atol(seconds);
	return status;
}

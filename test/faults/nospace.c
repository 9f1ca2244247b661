/*
 * nospace.c
 *	  For tests only: a full disk.  Preloaded into the server (LD_PRELOAD), it
 *	  refuses with ENOSPC what would take room, as long as there is a file of
 *	  that name in the directory NOSPACE_SWITCHES:
 *
 *	  data	a relation's file is to grow
 *	  wal	a new segment of the write-ahead log is to be made
 *	  shm	a segment of shared memory is to get its room
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int
is_on(const char *name)
{
	const char *dir = getenv("NOSPACE_SWITCHES");
	char		path[PATH_MAX];

	if (dir == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static int
no_space(int fd, off_t end)
{
	int			saved = errno;
	int			refuse = 0;
	char		link[64];
	char		path[PATH_MAX];
	ssize_t		len;
	struct stat st;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len > 0)
	{
		path[len] = '\0';
		if (strstr(path, "/base/") != NULL)
			refuse = fstat(fd, &st) == 0 && end > st.st_size && is_on("data");
		else if (strstr(path, "/pg_wal/xlogtemp") != NULL)
			refuse = is_on("wal");
		else if (strncmp(path, "/dev/shm/", 9) == 0)
			refuse = is_on("shm");
	}
	errno = refuse ? ENOSPC : saved;
	return refuse;
}

ssize_t
pwrite(int fd, const void *buffer, size_t count, off_t offset)
{
	static ssize_t (*next) (int, const void *, size_t, off_t) = NULL;

	if (next == NULL)
		*(void **) &next = dlsym(RTLD_NEXT, "pwrite");
	return no_space(fd, offset + count) ? -1 : next(fd, buffer, count, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	static ssize_t (*next) (int, const struct iovec *, int, off_t) = NULL;
	off_t		end = offset;
	int			i;

	if (next == NULL)
		*(void **) &next = dlsym(RTLD_NEXT, "pwritev");
	for (i = 0; i < iovcnt; i++)
		end += iov[i].iov_len;
	return no_space(fd, end) ? -1 : next(fd, iov, iovcnt, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t len)
{
	static int	(*next) (int, off_t, off_t) = NULL;

	if (next == NULL)
		*(void **) &next = dlsym(RTLD_NEXT, "posix_fallocate");
	return no_space(fd, offset + len) ? ENOSPC : next(fd, offset, len);
}

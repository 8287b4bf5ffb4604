/* launch_activate_socket with Apple's contract (launch.h): the return value is the error
 * number; the array comes from malloc and belongs to the caller; a name is given once. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 8, FDS_MAX = 4 };

static struct {
	char name[32];
	int fds[FDS_MAX];
	size_t count;
	int given;
} offered[NAMES_MAX];
static size_t offers;
static int managed;
static void *last_array;
static int frees;

/* What launchd read from the property list: a socket that it bound for us. */
void offer(const char *name, int fd) {
	size_t at = 0;
	managed = 1;
	while (at < offers && strcmp(offered[at].name, name) != 0)
		at++;
	if (at == offers)
		strncpy(offered[offers++].name, name, sizeof offered[0].name - 1);
	offered[at].fds[offered[at].count++] = fd;
}

/* The same for a program that is started with this library preloaded, as it would be by
 * launchd: ACTIVATE_SOCKETS is "name=fd,name=fd". */
__attribute__((constructor)) static void offer_from_environment(void) {
	const char *given = getenv("ACTIVATE_SOCKETS");
	char list[256], *rest = list, *entry;
	if (given == NULL)
		return;
	managed = 1;
	strncpy(list, given, sizeof list - 1);
	list[sizeof list - 1] = 0;
	while ((entry = strsep(&rest, ",")) != NULL) {
		char *fd = strchr(entry, '=');
		if (fd == NULL)
			continue;
		*fd++ = 0;
		offer(entry, atoi(fd));
	}
}

int launch_activate_socket(const char *name, int **fds, size_t *cnt) {
	if (!managed)
		return ESRCH;
	for (size_t at = 0; at < offers; at++) {
		if (strcmp(offered[at].name, name) != 0)
			continue;
		if (offered[at].given)
			return EALREADY;
		offered[at].given = 1;
		*cnt = offered[at].count;
		*fds = malloc(*cnt * sizeof **fds);
		memcpy(*fds, offered[at].fds, *cnt * sizeof **fds);
		last_array = *fds;
		return 0;
	}
	return ENOENT;
}

/* Seen by whoever looks "free" up in this library: counts what the caller gives back. */
extern void __libc_free(void *);
void free(void *array) {
	if (array != NULL && array == last_array) {
		last_array = NULL;
		frees++;
	}
	__libc_free(array);
}

int arrays_freed(void) { return frees; }

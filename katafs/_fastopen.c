/*
 * The no-OPEN mode, for pyfuse3.
 *
 * Linux sends OPEN for every file and OPENDIR for every directory until the server once answers ENOSYS; from then on
 * it opens by itself, keeps file pages and listings cached, and a warm read never leaves the kernel. The same goes for
 * FLUSH. Without OPEN there are no file handles (the kernel sends 0), but pyfuse3's handlers are told nothing else.
 *
 * This library is loaded with RTLD_GLOBAL before pyfuse3, so that pyfuse3's call of fuse_session_new() comes here; from
 * libfuse 3.17 on that name is a macro, and what is called is fuse_session_new_versioned(). It hands a changed table of
 * operations to the real function: the handle of a read, write or readdir becomes the inode number, open, opendir and
 * flush are answered here, and who sends a write is noted for the handler that runs next (pyfuse3 runs handlers in one
 * thread, each up to its first wait, before it takes another request).
 *
 * It also lets a daemon take over a mount from another that has died. libfuse answers nothing before it has seen
 * FUSE_INIT, which the kernel sends once in the life of a mount: katafs_fast_greet() hands it one that was read
 * elsewhere. And fuse_session_process_buf() is wrapped to note the number of the request being handled, by which a
 * request that the kernel sends again is known.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VISIBLE __attribute__((visibility("default")))
#include "_tables.h"

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
/* `want` is the lower half of `want_ext` there, and libfuse keeps the two alike. */
#define REFUSE(conn, flag) fuse_unset_feature_flag(conn, flag)
#define SESSION_NEW fuse_session_new_versioned
#define VERSION_PARAMETER struct libfuse_version *version,
#define VERSION_ARGUMENT version,
#else
#define REFUSE(conn, flag) ((conn)->want &= ~(flag))
#define SESSION_NEW fuse_session_new
#define VERSION_PARAMETER
#define VERSION_ARGUMENT
#endif
#define TEXT(name) #name
#define NAME_OF(name) TEXT(name)

/* What Python reads: plain variables, found with ctypes. */
VISIBLE int katafs_fast_wanted = 0;  /* set before fuse_session_new() */
VISIBLE int katafs_fast_wrapped = 0; /* fuse_session_new() was called here */
VISIBLE int katafs_fast_active = 0;  /* the kernel can do without OPEN and OPENDIR */
VISIBLE const char katafs_fast_wraps[] = NAME_OF(SESSION_NEW); /* what pyfuse3 must call for that */
/* Of the last write or setattr: */
VISIBLE pid_t katafs_fast_pid = 0;       /* the thread that sent it; 0: not in our namespace */
VISIBLE uid_t katafs_fast_uid = 0;       /* its user */
VISIBLE int katafs_fast_flags = 0;       /* how the file was opened that is written to, as for open(2) */
VISIBLE int katafs_fast_is_page = 0;     /* whether the kernel writes back a page that somebody has mapped */
VISIBLE int katafs_fast_by_file = 0;     /* whether attributes are set of an open file: ftruncate(2) */
VISIBLE int katafs_fast_greeted = 0; /* FUSE_INIT was handled */
VISIBLE int katafs_fast_flushed = 0; /* the kernel was told that it need not send FLUSH */
VISIBLE uint64_t katafs_fast_unique = 0; /* the number of the request being handled; 0: not known */

static struct fuse_lowlevel_ops real;
static struct fuse_session *session;

static void fast_init(void *userdata, struct fuse_conn_info *conn)
{
	real.init(userdata, conn);
	/* A write that comes through a pipe cannot be looked at before it is taken. */
	REFUSE(conn, FUSE_CAP_SPLICE_READ);
	if ((conn->capable & FUSE_CAP_NO_OPEN_SUPPORT) && (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT)) {
		katafs_fast_active = 1;
		/* Without OPEN nobody would hear of O_TRUNC: let the kernel send SETATTR with size 0 instead. */
		REFUSE(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	}
	katafs_fast_greeted = 1;
}

static void note_sender(fuse_req_t req)
{
	katafs_fast_pid = fuse_req_ctx(req)->pid;
	katafs_fast_uid = fuse_req_ctx(req)->uid;
}

static void fast_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (katafs_fast_active)
		fuse_reply_err(req, ENOSYS);
	else
		real.open(req, ino, fi);
}

static void fast_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (katafs_fast_active)
		fuse_reply_err(req, ENOSYS);
	else
		real.opendir(req, ino, fi);
}

static void fast_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (katafs_fast_active) {
		fuse_reply_err(req, ENOSYS);
		katafs_fast_flushed = 1;
	} else {
		real.flush(req, ino, fi);
	}
}

static void fast_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (answer_read(req, ino, size, off))
		return;
	if (katafs_fast_active)
		fi->fh = ino;
	real.read(req, ino, size, off, fi);
}

static void fast_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (answer_listing(req, ino, size, off))
		return;
	if (katafs_fast_active)
		fi->fh = ino;
	real.readdirplus(req, ino, size, off, fi);
}

static void fast_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off,
			   struct fuse_file_info *fi)
{
	note_sender(req);
	katafs_fast_flags = fi->flags;
	katafs_fast_is_page = fi->writepage;
	if (katafs_fast_active)
		fi->fh = ino;
	real.write_buf(req, ino, bufv, off, fi);
}

static void fast_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	note_sender(req);
	katafs_fast_by_file = fi != NULL;
	real.setattr(req, ino, attr, to_set, katafs_fast_active ? NULL : fi);
}

VISIBLE struct fuse_session *SESSION_NEW(struct fuse_args *args, const struct fuse_lowlevel_ops *op, size_t op_size,
					 VERSION_PARAMETER void *userdata)
{
	static __typeof__(SESSION_NEW) *next;
	struct fuse_lowlevel_ops ops;

	next = dlsym(RTLD_NEXT, NAME_OF(SESSION_NEW));
	if (!next)
		return NULL;
	if (!katafs_fast_wanted)
		return session = next(args, op, op_size, VERSION_ARGUMENT userdata);

	memset(&real, 0, sizeof(real));
	memcpy(&real, op, op_size < sizeof(real) ? op_size : sizeof(real));
	if (!real.init || !real.open || !real.opendir || !real.flush || !real.read || !real.readdirplus ||
	    !real.write_buf || !real.setattr)
		return session = next(args, op, op_size, VERSION_ARGUMENT userdata);
	katafs_fast_wrapped = 1;
	ops = real;
	ops.init = fast_init;
	ops.open = fast_open;
	ops.opendir = fast_opendir;
	ops.flush = fast_flush;
	ops.read = fast_read;
	ops.readdirplus = fast_readdirplus;
	ops.write_buf = fast_write_buf;
	ops.setattr = fast_setattr;
	return session = next(args, &ops, sizeof(ops), VERSION_ARGUMENT userdata);
}

VISIBLE void fuse_session_process_buf(struct fuse_session *se, const struct fuse_buf *buf)
{
	static void (*next)(struct fuse_session *, const struct fuse_buf *);

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_session_process_buf");
	if (!next)
		abort();
	if (!(buf->flags & FUSE_BUF_IS_FD) && buf->size >= sizeof(struct fuse_in_header))
		katafs_fast_unique = ((const struct fuse_in_header *)buf->mem)->unique;
	else
		katafs_fast_unique = 0;
	next(se, buf);
}

/*
 * Tell the kernel to forget names in directories, and inodes; what it does not know it need not forget. Returns the first
 * errno, or 0. In one call, since each call from Python waits for its lock when it comes back.
 */
VISIBLE int katafs_fast_forget(const uint64_t *parents, const char *const *names, size_t entries,
			       const uint64_t *inodes, size_t count)
{
	int failure = 0, result;
	size_t i;

	for (i = 0; i < entries; i++) {
		result = fuse_lowlevel_notify_inval_entry(session, parents[i], names[i], strlen(names[i]));
		if (result != -ENOENT && !failure)
			failure = -result;
	}
	for (i = 0; i < count; i++) {
		result = fuse_lowlevel_notify_inval_inode(session, inodes[i], 0, 0);
		if (result != -ENOENT && !failure)
			failure = -result;
	}
	return failure;
}

/*
 * Have libfuse handle a FUSE_INIT that was read from the kernel before. Its reply reaches the kernel once; to another
 * one for the same mount the kernel says ENOENT, which libfuse passes over. Returns whether it was understood.
 */
VISIBLE int katafs_fast_greet(const void *request, size_t size)
{
	/* as libfuse receives one: in memory of its own, which it may write to */
	struct fuse_buf buf = {.size = size, .mem = malloc(size)};

	if (!session || !buf.mem) {
		free(buf.mem);
		return 0;
	}
	memcpy(buf.mem, request, size);
	fuse_session_process_buf(session, &buf);
	free(buf.mem);
	return katafs_fast_greeted;
}

/*
 * Part of _fastopen.c. Tables: listings of directories and contents of files, made by Python before the kernel asks for them.
 *
 * A cold request costs Python some 80 microseconds, of which what is particular to it is the least. Who walks through
 * the events of a kata asks for hundreds of directories and files that never change; Python makes the tables of several
 * events at once, and here they are found by inode number and answered. All of it happens in the thread that handles
 * requests, which has Python's lock while it does.
 *
 * The tables lie in a ring of bytes, the newest over the oldest, and are found by a hash of the number, the newer
 * instead of the older: what is not found is asked of Python. One that is older than a moment is not used: by then
 * somebody else may have changed the kata, which Python looks for at each request.
 */

#include <fuse_lowlevel.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define RING ((uint64_t)3 << 19)
#define SLOTS 4096
#define OLDEST 700000000ull /* nanoseconds */
#define KATA_SHIFT 27       /* the bits of a number below those of its kata, see katafs.tree.numbers */
#define EVENT_SHIFT 13      /* the same of its event */
#define CONTENT UINT32_MAX

/* What Python reads: plain variables, found with ctypes. */
VISIBLE uint64_t katafs_tables_listings = 0; /* requests that were answered */
VISIBLE uint64_t katafs_tables_reads = 0;
VISIBLE uint64_t katafs_tables_answered = 0; /* the number of what was answered last */
VISIBLE uint64_t katafs_tables_bytes = 0; /* of the ring that were ever used */

/* A table as Python packs it: this, then what it holds; as a whole a multiple of 8 bytes. */
struct table {
	uint64_t number;
	uint32_t size;  /* of what follows, in bytes */
	uint32_t count; /* of its entries; CONTENT: what follows is a file's */
	/* of a directory; its entries have the same owner and times */
	uint64_t above;
	uint64_t base; /* of the numbers of its entries */
	int64_t mtime_ns;
	uint32_t uid, gid;
	double timeout; /* seconds, of names and attributes */
	uint32_t length; /* of a file: bytes */
	uint32_t unused;
};

/* Of entries there follow all sizes, of 64 bits, all numbers without their base and all modes, of 32, and all names, each
 * with a NUL behind it. */

static char ring[RING] __attribute__((aligned(8)));
static uint64_t end; /* how many bytes were ever written, with those left out at the end of the ring */
static struct {
	uint64_t number, at, made_ns;
} slots[SLOTS];

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static size_t slot_of(uint64_t number)
{
	/* 64 events of one kata with 64 numbers each do not meet */
	return (((number >> KATA_SHIFT) * 0x9e3779b97f4a7c15ull >> 52) + (number >> EVENT_SHIFT) * 64 + number) % SLOTS;
}

static const struct table *find(uint64_t number)
{
	size_t slot = slot_of(number);

	if (slots[slot].number != number || end - slots[slot].at > RING || now_ns() - slots[slot].made_ns > OLDEST)
		return NULL;
	return (const struct table *)(ring + slots[slot].at % RING);
}

/* Take tables, one behind the other. */
VISIBLE void katafs_tables_hand(const char *tables, size_t size)
{
	uint64_t at, now = now_ns();
	const struct table *table;
	size_t next, slot;

	if (size > RING / 2)
		return;
	if (end % RING + size > RING)
		end += RING - end % RING;
	memcpy(ring + end % RING, tables, size);
	at = end;
	end += size;
	katafs_tables_bytes = end < RING ? end : RING;
	for (next = 0; next + sizeof(*table) <= size; next += sizeof(*table) + table->size) {
		table = (const struct table *)(tables + next);
		slot = slot_of(table->number);
		slots[slot].number = table->number;
		slots[slot].at = at + next;
		slots[slot].made_ns = now;
	}
}

/* Forget the tables of a kata, given one of its numbers. */
VISIBLE void katafs_tables_drop(uint64_t number)
{
	size_t slot;

	for (slot = 0; slot < SLOTS; slot++)
		if (slots[slot].number >> KATA_SHIFT == number >> KATA_SHIFT)
			slots[slot].number = 0;
}

/* One entry into a buffer; how many bytes it takes, which is more than there is room for where it was left out. */
static size_t add(fuse_req_t req, char *buffer, size_t room, const char *name, const struct table *table,
		  uint64_t number, uint32_t mode, uint64_t size, off_t next)
{
	struct fuse_entry_param param = {.ino = number, .attr_timeout = table->timeout};

	param.entry_timeout = table->timeout;
	param.attr.st_ino = number;
	param.attr.st_mode = mode;
	param.attr.st_nlink = 1;
	param.attr.st_uid = table->uid;
	param.attr.st_gid = table->gid;
	param.attr.st_size = size;
	param.attr.st_blksize = 131072;
	param.attr.st_blocks = (size + 511) / 512;
	param.attr.st_mtim.tv_sec = table->mtime_ns / 1000000000;
	param.attr.st_mtim.tv_nsec = table->mtime_ns % 1000000000;
	param.attr.st_atim = param.attr.st_ctim = param.attr.st_mtim;
	return fuse_add_direntry_plus(req, buffer, room, name, &param, next);
}

/* Answer a READDIRPLUS from a table; 0 where there is none, and nothing was answered. */
static int answer_listing(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset)
{
	static char buffer[1 << 17];
	const struct table *table = find(number);
	const uint64_t *sizes;
	const uint32_t *slots, *modes;
	const char *name;
	size_t used = 0, took = 0;
	off_t position;

	if (!table || table->count == CONTENT || offset < 0)
		return 0;
	if (size > sizeof(buffer))
		size = sizeof(buffer);
	sizes = (const uint64_t *)(table + 1);
	slots = (const uint32_t *)(sizes + table->count);
	modes = slots + table->count;
	name = (const char *)(modes + table->count);
	for (position = -2; position < table->count; position++, used += took) {
		if (position + 2 < offset)
			took = 0;
		else if (position < 0)
			took = add(req, buffer + used, size - used, &".."[position == -2], table,
				   position == -2 ? number : table->above, S_IFDIR, 0, position + 3);
		else
			took = add(req, buffer + used, size - used, name, table, table->base + slots[position],
				   modes[position], sizes[position], position + 3);
		if (took > size - used)
			break;
		if (position >= 0)
			name += strlen(name) + 1;
	}
	fuse_reply_buf(req, buffer, used);
	katafs_tables_listings++;
	katafs_tables_answered = number;
	return 1;
}

/* The same of a READ. */
static int answer_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset)
{
	const struct table *table = find(number);
	size_t left;

	if (!table || table->count != CONTENT || offset < 0)
		return 0;
	left = (uint64_t)offset < table->length ? table->length - offset : 0;
	fuse_reply_buf(req, (const char *)(table + 1) + (left ? offset : 0), left < size ? left : size);
	katafs_tables_reads++;
	katafs_tables_answered = number;
	return 1;
}

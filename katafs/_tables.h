/* Listings and contents of files that are answered without Python, see _tables.c. */
#ifndef KATAFS_TABLES_H
#define KATAFS_TABLES_H
#include <fuse_lowlevel.h>

/* Answer a READDIRPLUS or a READ from a table; 0 where there is none, and nothing was answered. */
int katafs_tables_list(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset);
int katafs_tables_read(fuse_req_t req, fuse_ino_t number, size_t size, off_t offset);

#endif

/* What gcc's unwinder asks glibc for, answered with musl's means: where the table for an address is. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>

struct answer { /* struct dl_find_object of glibc */
    unsigned long long flags;
    void *start, *end, *object, *table;
};

struct question {
    ElfW(Addr) address;
    struct answer *answer;
};

static int look(struct dl_phdr_info *object, size_t size, void *data) {
    struct question *question = data;
    ElfW(Addr) start = 0, end = 0, table = 0;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        ElfW(Addr) from = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_GNU_EH_FRAME)
            table = from;
        if (part->p_type == PT_LOAD && question->address >= from && question->address < from + part->p_memsz) {
            start = from;
            end = from + part->p_memsz;
        }
    }
    if (!start || !table)
        return 0;
    *question->answer = (struct answer){0, (void *)start, (void *)end, 0, (void *)table};
    return 1;
}

int _dl_find_object(void *address, void *answer) {
    struct question question = {(ElfW(Addr))address, answer};
    return dl_iterate_phdr(look, &question) ? 0 : -1;
}

/* The unwinder names these weakly, which links nothing in. */
const void *const _polyaio_threads[] = {
    pthread_once, pthread_key_create, pthread_getspecific, pthread_setspecific, pthread_mutex_lock, pthread_mutex_unlock,
};

/* Tables that the dynamic linker believes without looking: it dies of the signal, or ends the
 * process, where one lacks its partner or runs past its end.  Each is refused before dlopen, by the
 * listing or when the file is opened. */
#include "fault.h"

#include <elf.h>
#include <string.h>

static unsigned char *bytes;
static size_t n_bytes;

static void *at(uint64_t offset, size_t n)
{
    assert_true(offset <= n_bytes && n <= n_bytes - offset);
    return bytes + offset;
}

static Elf64_Phdr *header(uint32_t type)
{
    const Elf64_Ehdr *h = at(0, sizeof *h);
    Elf64_Phdr *p = at(h->e_phoff, h->e_phnum * sizeof *p);
    for (int i = 0; i < h->e_phnum; i++) {
        if (p[i].p_type == type) {
            return &p[i];
        }
    }
    return NULL;
}

/* Bytes at an address of the image. */
static void *loaded(uint64_t address, size_t n)
{
    const Elf64_Ehdr *h = at(0, sizeof *h);
    const Elf64_Phdr *p = at(h->e_phoff, h->e_phnum * sizeof *p);
    for (int i = 0; i < h->e_phnum; i++) {
        if (p[i].p_type == PT_LOAD && address >= p[i].p_vaddr &&
            address - p[i].p_vaddr < p[i].p_filesz) {
            return at(p[i].p_offset + (address - p[i].p_vaddr), n);
        }
    }
    fail_msg("0x%llx is not loaded", (unsigned long long)address);
    return NULL;
}

static Elf64_Dyn *entry(int64_t tag)
{
    const Elf64_Phdr *p = header(PT_DYNAMIC);
    Elf64_Dyn *d = at(p->p_offset, p->p_filesz);
    for (; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == tag) {
            return d;
        }
    }
    return NULL;
}

/* An entry that nobody looks for stands in its place. */
static bool drop(int64_t tag)
{
    Elf64_Dyn *d = entry(tag);
    if (d) {
        d->d_tag = DT_DEBUG;
    }
    return d != NULL;
}

static bool set(int64_t tag, uint64_t value)
{
    Elf64_Dyn *d = entry(tag);
    if (d) {
        d->d_un.d_val = value;
    }
    return d != NULL;
}

static bool no_relasz(void)
{
    return drop(DT_RELASZ);
}

static bool no_pltrelsz(void)
{
    return drop(DT_PLTRELSZ);
}

static bool no_plt(void)
{
    return drop(DT_PLTRELSZ) && drop(DT_JMPREL); /* DT_PLTREL stays */
}

static bool plt_of_rel(void)
{
    return set(DT_PLTREL, DT_REL);
}

static bool no_init_arraysz(void)
{
    return drop(DT_INIT_ARRAYSZ);
}

static bool no_fini_arraysz(void)
{
    return drop(DT_FINI_ARRAYSZ);
}

static bool init_is_data(void)
{
    return set(DT_INIT, header(PT_DYNAMIC)->p_vaddr);
}

static bool no_versym(void)
{
    return drop(DT_VERSYM);
}

static bool no_verneed(void)
{
    return drop(DT_VERNEED);
}

static bool relacount(void)
{
    return set(DT_RELACOUNT, 1000);
}

static bool last_need_goes_on(void)
{
    const Elf64_Dyn *d = entry(DT_VERNEED);
    Elf64_Verneed *v = d ? loaded(d->d_un.d_ptr, sizeof *v) : NULL;
    while (v && v->vn_next) {
        v = (Elf64_Verneed *)((char *)v + v->vn_next);
    }
    if (v) {
        v->vn_next = 0x10000000;
    }
    return v != NULL;
}

static bool last_version_goes_on(void)
{
    const Elf64_Dyn *d = entry(DT_VERNEED);
    const Elf64_Verneed *v = d ? loaded(d->d_un.d_ptr, sizeof *v) : NULL;
    Elf64_Vernaux *a = v ? loaded(d->d_un.d_ptr + v->vn_aux, sizeof *a) : NULL;
    while (a && a->vna_next) {
        a = (Elf64_Vernaux *)((char *)a + a->vna_next);
    }
    if (a) {
        a->vna_next = 0x10000000;
    }
    return a != NULL;
}

static bool three_bloom_words(void)
{
    const Elf64_Dyn *d = entry(DT_GNU_HASH);
    uint32_t *table = d ? loaded(d->d_un.d_ptr, 16) : NULL;
    if (table) {
        table[2] = 3;
    }
    return table != NULL;
}

static bool notes_outside(void)
{
    Elf64_Phdr *p = header(PT_GNU_PROPERTY) ? header(PT_GNU_PROPERTY) : header(PT_NOTE);
    if (p) {
        p->p_vaddr = p->p_paddr = UINT64_C(1) << 40;
    }
    return p != NULL;
}

static bool thread_local_too_long(void)
{
    const Elf64_Phdr *data = header(PT_DYNAMIC);
    Elf64_Phdr *p = header(PT_NOTE);
    if (p) {
        *p = (Elf64_Phdr){.p_type = PT_TLS,
                          .p_flags = PF_R,
                          .p_offset = data->p_offset,
                          .p_vaddr = data->p_vaddr,
                          .p_filesz = 64,
                          .p_memsz = 8,
                          .p_align = 8};
    }
    return p != NULL;
}

/* The relocations as packed ones: an address, then what `second` is. */
static bool packed(uint64_t first, uint64_t second)
{
    const Elf64_Dyn *rela = entry(DT_RELA);
    Elf64_Dyn *size = entry(DT_RELASZ), *each = entry(DT_RELAENT), *where = entry(DT_RELA);
    if (!rela) {
        return false;
    }
    uint64_t *table = loaded(rela->d_un.d_ptr, 16);
    table[0] = first;
    table[1] = second;
    (void)drop(DT_RELACOUNT);
    *where = (Elf64_Dyn){DT_RELR, {where->d_un.d_ptr}};
    *size = (Elf64_Dyn){DT_RELRSZ, {16}};
    *each = (Elf64_Dyn){DT_RELRENT, {8}};
    return true;
}

static bool packed_begins_with_bits(void)
{
    return packed(3, 3);
}

static bool packed_outside(void)
{
    return packed(UINT64_C(1) << 40, 1);
}

static bool packed_into_code(void)
{
    return packed(0x1000, 1);
}

static bool packed_runs_out(void)
{
    const Elf64_Dyn *array = entry(DT_INIT_ARRAY);
    return array && packed(array->d_un.d_ptr, UINT64_MAX);
}

static const struct {
    const char *name;
    bool (*damage)(void); /* false: this linker made no such table */
} kinds[] = {
    {"no_relasz", no_relasz},
    {"no_pltrelsz", no_pltrelsz},
    {"no_plt", no_plt},
    {"plt_of_rel", plt_of_rel},
    {"no_init_arraysz", no_init_arraysz},
    {"no_fini_arraysz", no_fini_arraysz},
    {"init_is_data", init_is_data},
    {"no_versym", no_versym},
    {"no_verneed", no_verneed},
    {"relacount", relacount},
    {"last_need_goes_on", last_need_goes_on},
    {"last_version_goes_on", last_version_goes_on},
    {"three_bloom_words", three_bloom_words},
    {"notes_outside", notes_outside},
    {"thread_local_too_long", thread_local_too_long},
    {"packed_begins_with_bits", packed_begins_with_bits},
    {"packed_outside", packed_outside},
    {"packed_into_code", packed_into_code},
    {"packed_runs_out", packed_runs_out},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* What became of bad.so, opened where the listing lets it pass. */
static uint32_t verdict(void)
{
    ATTN_ERROR_ON(err, 512);
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    attn_host_op *op = NULL;
    attn_file_info info = {.size = sizeof info};
    fault_registry(0);
    if (attn_host_op_open(the_fault.registry, BAD_ID, &cpu, NULL, NULL, 0, &op, &err) == ATTN_OK) {
        assert_int_equal(attn_host_op_close(op), ATTN_OK);
    }
    for (uint32_t i = 0; attn_registry_file(the_fault.registry, i, &info) == ATTN_OK; i++) {
        if (strcmp(info.path, fault_path("bad.so")) == 0) {
            return info.verdict;
        }
    }
    fail_msg("bad.so is not listed");
    return 0;
}

static void test(void **state)
{
    size_t n = 0;
    unsigned char *original = fault_plugin_bytes(&n);
    int made = 0;
    (void)state;
    assert_int_equal(verdict(), ATTN_VERDICT_OK);
    bytes = malloc(n);
    assert_non_null(bytes);
    n_bytes = n;
    for (int i = 0; i < KINDS; i++) {
        memcpy(bytes, original, n);
        if (!kinds[i].damage()) {
            print_message("%s: no such table here\n", kinds[i].name);
            continue;
        }
        made++;
        fault_put_bytes(bytes, n, "bad.so");
        uint32_t found = verdict();
        if (found != ATTN_VERDICT_BAD_ELF) {
            fail_msg("%s: %s, expected BAD_ELF", kinds[i].name, attn_verdict_name(found));
        }
    }
    assert_true(made >= KINDS / 2);
    fault_expect_good();
    free(bytes);
    free(original);
}

FAULT_MAIN(FAULT_TEST(test))

/*
 * A stand-in for NVML with fixed answers, so that the real way of loading a library can be tested without a driver.
 *
 * Card 0 tells everything, card 1 next to nothing, card 2 may not be used. The driver's version ends in the number of
 * inits that were not shut down. FAKENVML_INIT and FAKENVML_COUNT hold a code that nvmlInit and nvmlDeviceGetCount give.
 * Functions that a real library has and this one lacks are missing on purpose.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, INSUFFICIENT_SIZE = 7 };

typedef struct { int index; } card;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process;

static card cards[3] = {{0}, {1}, {2}};
static int inits;

#define GIB (1ULL << 30)
#define NONE 0xFFFFFFFFu

static int ordered(const char *variable) {
    const char *code = getenv(variable);
    return code ? atoi(code) : SUCCESS;
}

static int text(const char *from, char *to, unsigned length) {
    if (inits < 1) return UNINITIALIZED;
    if (strlen(from) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

static int number(const card *c, unsigned value, unsigned *to) {
    if (inits < 1) return UNINITIALIZED;
    if (c->index != 0) return NOT_SUPPORTED;
    *to = value;
    return SUCCESS;
}

int nvmlInit_v2(void) {
    int code = ordered("FAKENVML_INIT");
    if (code == SUCCESS) inits++;
    return code;
}

int nvmlShutdown(void) {
    if (inits < 1) return UNINITIALIZED;
    inits--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static char words[32];
    snprintf(words, sizeof words, "fake words for %d", code);
    return words;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char words[32];
    snprintf(words, sizeof words, "999.1.%d", inits);
    return text(words, version, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (inits < 1) return UNINITIALIZED;
    *count = 3;
    return ordered("FAKENVML_COUNT");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, card **c) {
    if (inits < 1) return UNINITIALIZED;
    if (index > 2) return INVALID_ARGUMENT;
    *c = &cards[index];
    return index == 2 ? NO_PERMISSION : SUCCESS;
}

int nvmlDeviceGetUUID(const card *c, char *uuid, unsigned length) {
    return text(c->index ? "GPU-00000000-0000-0000-0000-000000000001" : "GPU-00000000-0000-0000-0000-00000000000a", uuid, length);
}

int nvmlDeviceGetName(const card *c, char *name, unsigned length) {
    return text(c->index ? "Fake Silent" : "Fake Talkative", name, length);
}

int nvmlDeviceGetMemoryInfo_v2(const card *c, memory_v2 *m) {
    if (inits < 1) return UNINITIALIZED;
    if (m->version != (sizeof *m | 2 << 24)) return INVALID_ARGUMENT;
    if (c->index != 0) return NOT_SUPPORTED;
    m->total = 24 * GIB;
    m->reserved = GIB / 2;
    m->used = 5 * GIB;
    m->free = m->total - m->reserved - m->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const card *c, memory_v1 *m) {
    (void)c;
    if (inits < 1) return UNINITIALIZED;
    m->total = 8 * GIB;
    m->used = GIB;
    m->free = 7 * GIB;
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkGeneration(const card *c, unsigned *n) { return number(c, 1, n); }
int nvmlDeviceGetCurrPcieLinkWidth(const card *c, unsigned *n) { return number(c, 8, n); }
int nvmlDeviceGetMaxPcieLinkGeneration(const card *c, unsigned *n) { return number(c, 4, n); }
int nvmlDeviceGetMaxPcieLinkWidth(const card *c, unsigned *n) { return number(c, 16, n); }

static int list(const card *c, const process *from, unsigned n, unsigned *count, process *to) {
    unsigned room = *count;
    if (inits < 1) return UNINITIALIZED;
    if (c->index != 0) return NOT_SUPPORTED;
    *count = n;
    if (room < n) return INSUFFICIENT_SIZE;
    memcpy(to, from, n * sizeof *from);
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const card *c, unsigned *count, process *to) {
    process all[] = {
        {(unsigned)getpid(), 3 * GIB, NONE, NONE},
        {1, GIB, NONE, NONE},
        {2, ~0ULL, NONE, NONE},
    };
    return list(c, all, 3, count, to);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(const card *c, unsigned *count, process *to) {
    process all[] = {{1, GIB, NONE, NONE}, {3, GIB / 4, NONE, NONE}};
    return list(c, all, 2, count, to);
}

int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    if (pid == 3) return text("\033[2Jhostile\n\xff", name, length);
    return text(pid == 1 ? "/sbin/init" : "python", name, length);
}

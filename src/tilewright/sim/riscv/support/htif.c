// The host-target interface of the RISC-V simulators: a word the program writes, a word the host writes.
#include "htif.h"

volatile uint64_t tohost __attribute__((section(".htif"), aligned(64)));
volatile uint64_t fromhost __attribute__((section(".htif"), aligned(64)));

static void send(uint64_t device, uint64_t command, uint64_t data) {
    while (tohost) fromhost = 0;
    tohost = device << 56 | command << 48 | data;
}

void htif_exit(int code) {
    for (;;) send(0, 0, (uint64_t)(uint32_t)code << 1 | 1);
}

void htif_print(const char *text) {
    while (*text) send(1, 1, (uint8_t)*text++);
}

static void print_number(uint64_t value) {
    char digits[21];
    char *at = digits + 20;
    *at = 0;
    do *--at = (char)('0' + value % 10); while (value /= 10);
    htif_print(at);
}

static void print_element(const uint8_t *bytes, size_t size) {
    htif_print("0x");
    for (size_t i = size; i-- > 0;) {
        const char text[] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], 0};
        htif_print(text);
    }
}

size_t htif_compare(const char *name, const void *got, const void *want, size_t count, size_t size) {
    const uint8_t *a = got, *b = want;
    size_t wrong = 0;
    for (size_t i = 0; i < count; ++i) {
        int differs = 0;
        for (size_t j = 0; j < size; ++j) differs |= a[i * size + j] != b[i * size + j];
        if (differs && wrong++ == 0) {
            htif_print(name);
            htif_print(": element ");
            print_number(i);
            htif_print(" is ");
            print_element(a + i * size, size);
            htif_print(", expected ");
            print_element(b + i * size, size);
            htif_print("\n");
        }
    }
    if (wrong) {
        print_number(wrong);
        htif_print(" of ");
        print_number(count);
        htif_print(" elements differ\n");
    }
    return wrong;
}

// The compiler calls these even in programs without a library.
void *memcpy(void *restrict target, const void *restrict source, size_t count) {
    uint8_t *to = target;
    const uint8_t *from = source;
    while (count--) *to++ = *from++;
    return target;
}

void *memmove(void *target, const void *source, size_t count) {
    uint8_t *to = target;
    const uint8_t *from = source;
    if (to < from) return memcpy(target, source, count);
    while (count--) to[count] = from[count];
    return target;
}

void *memset(void *target, int byte, size_t count) {
    uint8_t *to = target;
    while (count--) *to++ = (uint8_t)byte;
    return target;
}

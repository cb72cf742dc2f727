/* primes: counts the primes of a range: a computation that many peers can share.
 *
 *     quantraband job run primes.wasm -- 0 1000000
 *
 * Each job takes its own range and prints one line that does not depend on the machine; the
 * counts of neighbouring ranges add up. Memory grows with the square root of the range's end
 * (about 1.2 MiB at the largest, 10^12), time with its length.
 *
 * Exit status: 0 done, 2 the arguments are wrong.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest end: its square root is 10^6, so that every small prime fits into 32 bits. */
#define LARGEST_END UINT64_C(1000000000000)
#define LARGEST_ROOT 1000000u
/* Numbers sieved at a time: what fits into a processor's first cache. */
#define SEGMENT 32768u
/* Primes up to LARGEST_ROOT: there are 78,498. */
#define MOST_SMALL_PRIMES 78498u

static uint32_t small_primes[MOST_SMALL_PRIMES];
static size_t small_count;
static bool composite[LARGEST_ROOT + 1];

struct found {
    uint64_t count;
    uint64_t first;
    uint64_t last;
};

/* Fills small_primes with the primes whose square is below end. */
static void find_small_primes(uint64_t end) {
    for (uint64_t n = 2; n * n < end; n++) {
        if (composite[n]) {
            continue;
        }
        small_primes[small_count++] = (uint32_t)n;
        for (uint64_t multiple = n * n; multiple <= LARGEST_ROOT; multiple += n) {
            composite[multiple] = true;
        }
    }
}

/* Adds the primes in [from, to), at most SEGMENT numbers of which none is below 2. */
static void sieve_segment(uint64_t from, uint64_t to, struct found *found) {
    static bool crossed[SEGMENT];

    memset(crossed, 0, sizeof crossed);
    for (size_t i = 0; i < small_count; i++) {
        uint64_t prime = small_primes[i];
        uint64_t multiple = prime * prime;

        if (multiple >= to) {
            break;
        }
        if (multiple < from) {
            multiple = (from + prime - 1) / prime * prime;
        }
        for (; multiple < to; multiple += prime) {
            crossed[multiple - from] = true;
        }
    }
    for (uint64_t n = from; n < to; n++) {
        if (!crossed[n - from]) {
            found->first = found->count == 0 ? n : found->first;
            found->last = n;
            found->count++;
        }
    }
}

/* Reads a whole decimal number of at most LARGEST_END. */
static bool read_number(const char *text, uint64_t *number) {
    char *end;

    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *number <= LARGEST_END;
}

int main(int argc, char **argv) {
    struct found found = {0};
    uint64_t from;
    uint64_t to;

    if (argc != 3 || !read_number(argv[1], &from) || !read_number(argv[2], &to) || from > to) {
        fprintf(stderr,
                "usage: primes FROM TO\n"
                "counts the primes p with FROM <= p < TO; 0 <= FROM <= TO <= %" PRIu64 "\n",
                LARGEST_END);
        return 2;
    }

    find_small_primes(to);
    for (uint64_t start = from < 2 ? 2 : from; start < to; start += SEGMENT) {
        sieve_segment(start, to - start < SEGMENT ? to : start + SEGMENT, &found);
    }

    printf("%" PRIu64 " primes from %" PRIu64 " to %" PRIu64, found.count, from, to);
    if (found.count > 0) {
        printf(", first %" PRIu64 ", last %" PRIu64, found.first, found.last);
    }
    printf("\n");
    return fflush(stdout) == 0 ? 0 : 1;
}

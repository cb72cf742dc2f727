/* hello: says what a guest is given: its arguments, its environment, its standard input.
 *
 *     quantraband job run hello.wasm -- one two
 *
 * A sandbox offers nothing else: no file, no network, no variable of the machine it runs on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* WASI has no main with three arguments: a module that has one ends in a trap. */
extern char **environ;

static int by_name(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Bytes of standard input, which is read to its end. */
static unsigned long long input_size(void) {
    static char buffer[65536];
    unsigned long long total = 0;
    size_t got;

    while ((got = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        total += got;
    }
    return total;
}

int main(int argc, char **argv) {
    size_t variables = 0;

    printf("hello from %s\n", argc > 0 ? argv[0] : "a guest without a name");
    for (int i = 1; i < argc; i++) {
        printf("argument %d: %s\n", i, argv[i]);
    }

    while (environ != NULL && environ[variables] != NULL) {
        variables++;
    }
    if (variables > 0) {
        qsort(environ, variables, sizeof *environ, by_name);
    }
    for (size_t i = 0; i < variables; i++) {
        printf("variable: %s\n", environ[i]);
    }

    printf("input: %llu bytes\n", input_size());
    if (fflush(stdout) != 0) {
        fprintf(stderr, "hello: cannot write the output\n");
        return 1;
    }
    return 0;
}

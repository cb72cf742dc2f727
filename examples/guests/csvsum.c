/* csvsum: sums columns of a CSV table from standard input, for each value of another column.
 *
 *     quantraband job run --stdin sales.csv csvsum.wasm -- --group region --sum amount
 *
 * Input is CSV as RFC 4180 has it: a header line, fields that may be quoted and then contain
 * commas, line breaks and doubled quotes, lines that end in LF or CRLF, and as many fields in each
 * record as in the header. Output is CSV as well, sorted by group: group, count, and for each
 * summed column its sum and its mean.
 *
 * Numbers are decimal (12, -0.5, +3.25) and summed exactly, with no floating point: the output
 * is the same on every machine, to the last digit. Input is read once and not kept; memory grows
 * with the number of groups only. Nothing is printed before all of the input was found good.
 *
 * Exit status: 0 done, 1 the output could not be written, 2 the arguments are wrong, 3 the input
 * is wrong, 4 the input is beyond what this program is made for. Messages name the line.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, NO_OUTPUT = 1, BAD_USAGE = 2, BAD_INPUT = 3, TOO_MUCH = 4 };

/* Columns that are summed. */
#define MOST_SUMS 8
/* Fields of a record. */
#define MOST_FIELDS 1024
/* Bytes of a record, without quotes. */
#define MOST_RECORD (1u << 20)
/* Groups; with names of ordinary length they need at most 120 MiB. */
#define MOST_GROUPS 500000u
/* Bytes of all groups' names: leaves room in 256 MiB, a sandbox's default. */
#define MOST_NAMES (64u << 20)
/* Digits after the decimal point. */
#define FRACTION_DIGITS 9
/* Digits before it: a sum has room for 10^14 such numbers. */
#define WHOLE_DIGITS 15
/* Digits that a mean has more than the numbers it is the mean of. */
#define MEAN_DIGITS 2

/* A number in units of 10^-FRACTION_DIGITS. */
typedef __int128 decimal;

struct options {
    const char *group;
    const char *sums[MOST_SUMS];
    size_t sum_count;
    char separator;
};

/* The record that was read last: field i is text + start[i], NUL-terminated. */
struct record {
    char *text;
    size_t length;
    size_t start[MOST_FIELDS];
    size_t size[MOST_FIELDS];
    size_t fields;
    /* The line it began in, and the one that is being read. */
    unsigned long long first_line;
    unsigned long long line;
};

struct group {
    char *name;
    size_t size;
    uint64_t hash;
    unsigned long long count;
    decimal sums[];
};

/* An open hash table whose size is a power of two. */
struct groups {
    struct group **slots;
    size_t capacity;
    size_t count;
    size_t name_bytes;
};

static _Noreturn void fail(int status, const char *format, ...) {
    va_list arguments;

    fputs("csvsum: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(status);
}

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);

    if (memory == NULL) {
        fail(TOO_MUCH, "out of memory: ask for more, or group by a column with fewer values");
    }
    return memory;
}

/* --- Records ------------------------------------------------------------------------------ */

static unsigned char input[1 << 16];
static size_t input_at;
static size_t input_end;

/* Reads more input; false at its end. */
static bool fill_input(void) {
    input_at = 0;
    input_end = fread(input, 1, sizeof input, stdin);
    return input_end > 0;
}

/* The next byte, or EOF. */
static int next_byte(void) {
    return input_at < input_end || fill_input() ? input[input_at++] : EOF;
}

/* Passes over a byte order mark, as spreadsheets write it, at the beginning of the input. */
static void skip_mark(void) {
    if (fill_input() && input_end >= 3 && memcmp(input, "\xEF\xBB\xBF", 3) == 0) {
        input_at = 3;
    }
}

static void end_field(struct record *record) {
    record->size[record->fields - 1] = record->length - record->start[record->fields - 1];
    record->text[record->length++] = '\0';
}

static void begin_field(struct record *record) {
    if (record->fields == MOST_FIELDS) {
        fail(TOO_MUCH, "line %llu: more than %d fields", record->line, MOST_FIELDS);
    }
    record->start[record->fields++] = record->length;
}

static void add_byte(struct record *record, int byte) {
    /* Room is left for the NUL of this field and of every further one. */
    if (record->length + MOST_FIELDS >= MOST_RECORD) {
        fail(TOO_MUCH, "line %llu: a record of more than about %u bytes", record->first_line,
             MOST_RECORD);
    }
    if (byte == '\0') {
        fail(BAD_INPUT, "line %llu: a zero byte: this is no text", record->line);
    }
    record->text[record->length++] = (char)byte;
}

/* Reads a quoted field after its opening quote; returns the byte after the closing one. */
static int read_quoted(struct record *record) {
    unsigned long long opened = record->line;

    for (;;) {
        int byte = next_byte();

        if (byte == EOF) {
            fail(BAD_INPUT, "line %llu: a quote that is opened here is never closed", opened);
        }
        if (byte == '"') {
            byte = next_byte();
            if (byte != '"') {
                return byte;
            }
        }
        record->line += byte == '\n';
        add_byte(record, byte);
    }
}

/* Reads one field into the record; returns the byte that ended it, CRLF being '\n'. */
static int read_field(struct record *record, int byte, char separator) {
    bool quoted = byte == '"';

    begin_field(record);
    if (quoted) {
        byte = read_quoted(record);
    }
    for (;; byte = next_byte()) {
        if (byte == '\r') {
            byte = next_byte();
            if (byte != '\n' && byte != EOF) {
                fail(BAD_INPUT, "line %llu: a carriage return without a line feed", record->line);
            }
        }
        if (byte == EOF || byte == '\n' || byte == (unsigned char)separator) {
            end_field(record);
            return byte;
        }
        if (quoted) {
            fail(BAD_INPUT, "line %llu: text after a closing quote (a quote inside a field is "
                 "written twice)", record->line);
        }
        if (byte == '"') {
            fail(BAD_INPUT, "line %llu: a quote inside a field that does not begin with one",
                 record->line);
        }
        add_byte(record, byte);
    }
}

/* Reads the next record, passing over empty lines; false at the end of the input. */
static bool read_record(struct record *record, char separator) {
    int byte = next_byte();

    record->fields = 0;
    record->length = 0;
    while (byte == '\n' || byte == '\r') {
        if (byte == '\r' && (byte = next_byte()) != '\n' && byte != EOF) {
            fail(BAD_INPUT, "line %llu: a carriage return without a line feed", record->line);
        }
        record->line++;
        byte = byte == EOF ? EOF : next_byte();
    }
    if (byte == EOF) {
        if (ferror(stdin)) {
            fail(BAD_INPUT, "line %llu: the input cannot be read", record->line);
        }
        return false;
    }
    record->first_line = record->line;
    byte = read_field(record, byte, separator);
    while (byte == (unsigned char)separator) {
        byte = read_field(record, next_byte(), separator);
    }
    record->line++;
    return true;
}

/* --- Numbers ------------------------------------------------------------------------------ */

/* Reads a decimal number (also .5); raises *digits to those it has after the point. */
static bool read_decimal(const char *text, decimal *number, int *digits) {
    bool negative = *text == '-';
    int whole = 0;
    int fraction = 0;
    decimal value = 0;

    text += *text == '-' || *text == '+';
    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (*text - '0');
        whole += whole > 0 || *text != '0' || text[1] < '0' || text[1] > '9';
        if (whole > WHOLE_DIGITS) {
            return false;
        }
    }
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++) {
            value = value * 10 + (*text - '0');
            if (++fraction > FRACTION_DIGITS) {
                return false;
            }
        }
        if (fraction == 0) {
            return false;
        }
    }
    if (*text != '\0' || whole + fraction == 0) {
        return false;
    }
    *digits = fraction > *digits ? fraction : *digits;
    for (; fraction < FRACTION_DIGITS; fraction++) {
        value *= 10;
    }
    *number = negative ? -value : value;
    return true;
}

/* Prints value, in units of 10^-scale, with that many digits after the point. */
static void print_decimal(decimal value, int scale) {
    char text[64];
    size_t at = sizeof text;
    bool negative = value < 0;
    unsigned __int128 rest = negative ? -(unsigned __int128)value : (unsigned __int128)value;

    text[--at] = '\0';
    for (int digit = 0; digit <= scale || rest > 0; digit++) {
        if (digit == scale && scale > 0) {
            text[--at] = '.';
        }
        text[--at] = (char)('0' + (int)(rest % 10));
        rest /= 10;
    }
    if (negative) {
        text[--at] = '-';
    }
    fputs(text + at, stdout);
}

/* numerator / denominator, rounded to the nearest; halves away from zero. */
static decimal divide(decimal numerator, decimal denominator) {
    decimal half = denominator / 2;

    return (numerator < 0 ? numerator - half : numerator + half) / denominator;
}

static decimal power_of_ten(int exponent) {
    decimal power = 1;

    while (exponent-- > 0) {
        power *= 10;
    }
    return power;
}

/* The sum with as many digits as the widest number, the mean with MEAN_DIGITS more. */
static void print_sum_and_mean(decimal sum, unsigned long long count, int digits) {
    int mean_digits = digits + MEAN_DIGITS;
    decimal mean;

    if (mean_digits > FRACTION_DIGITS) {
        mean_digits = FRACTION_DIGITS;
    }
    mean = divide(sum, (decimal)count * power_of_ten(FRACTION_DIGITS - mean_digits));
    putchar(',');
    print_decimal(sum / power_of_ten(FRACTION_DIGITS - digits), digits);
    putchar(',');
    print_decimal(mean, mean_digits);
}

/* --- Groups ------------------------------------------------------------------------------- */

/* FNV-1a. */
static uint64_t hash_of(const char *name, size_t size) {
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)name[i]) * UINT64_C(1099511628211);
    }
    return hash ^ hash >> 32;
}

/* The slot where a group of this name is, or would be. */
static struct group **slot_of(const struct groups *groups, const char *name, size_t size,
                              uint64_t hash) {
    size_t at = (size_t)hash & (groups->capacity - 1);

    for (;; at = (at + 1) & (groups->capacity - 1)) {
        struct group *group = groups->slots[at];

        if (group == NULL ||
            (group->hash == hash && group->size == size && memcmp(group->name, name, size) == 0)) {
            return &groups->slots[at];
        }
    }
}

static void grow(struct groups *groups) {
    struct groups larger = *groups;

    larger.capacity = groups->capacity == 0 ? 1024 : groups->capacity * 2;
    larger.slots = allocate(larger.capacity * sizeof *larger.slots);
    for (size_t i = 0; i < groups->capacity; i++) {
        struct group *group = groups->slots[i];

        if (group != NULL) {
            *slot_of(&larger, group->name, group->size, group->hash) = group;
        }
    }
    free(groups->slots);
    *groups = larger;
}

static struct group *find_or_add(struct groups *groups, const char *name, size_t size,
                                 size_t sums) {
    uint64_t hash = hash_of(name, size);
    struct group **slot;

    if (groups->count * 2 >= groups->capacity) {
        grow(groups);
    }
    slot = slot_of(groups, name, size, hash);
    if (*slot == NULL) {
        if (groups->count == MOST_GROUPS || groups->name_bytes + size > MOST_NAMES) {
            fail(TOO_MUCH, "more than %u groups, or %u MiB of their names", MOST_GROUPS,
                 MOST_NAMES >> 20);
        }
        *slot = allocate(sizeof **slot + sums * sizeof(decimal));
        (*slot)->name = allocate(size + 1);
        memcpy((*slot)->name, name, size);
        (*slot)->size = size;
        (*slot)->hash = hash;
        groups->count++;
        groups->name_bytes += size;
    }
    return *slot;
}

static int by_name(const void *left, const void *right) {
    const struct group *a = *(struct group *const *)left;
    const struct group *b = *(struct group *const *)right;
    int order = memcmp(a->name, b->name, a->size < b->size ? a->size : b->size);

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

/* --- The whole ---------------------------------------------------------------------------- */

static _Noreturn void usage(void) {
    fputs("usage: csvsum [--group COLUMN] --sum COLUMN [--sum COLUMN]... [--separator BYTE]\n"
          "sums columns of a CSV table from standard input, for each value of another column\n",
          stderr);
    exit(BAD_USAGE);
}

static struct options read_options(int argc, char **argv) {
    struct options options = {.separator = ','};

    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (value == NULL) {
            usage();
        } else if (strcmp(argv[i], "--group") == 0 && options.group == NULL) {
            options.group = value;
        } else if (strcmp(argv[i], "--sum") == 0 && options.sum_count < MOST_SUMS) {
            options.sums[options.sum_count++] = value;
        } else if (strcmp(argv[i], "--separator") == 0 && strlen(value) == 1 &&
                   strchr("\"\r\n", value[0]) == NULL) {
            options.separator = value[0];
        } else {
            usage();
        }
    }
    if (options.sum_count == 0) {
        usage();
    }
    return options;
}

/* The position of the column of this name. */
static size_t column(const struct record *header, const char *name) {
    size_t at = header->fields;

    for (size_t i = 0; i < header->fields; i++) {
        if (strcmp(header->text + header->start[i], name) == 0) {
            if (at != header->fields) {
                fail(BAD_INPUT, "line %llu: two columns are named \"%s\"", header->first_line,
                     name);
            }
            at = i;
        }
    }
    if (at == header->fields) {
        fail(BAD_INPUT, "line %llu: no column is named \"%s\"", header->first_line, name);
    }
    return at;
}

static void print_text(const char *text, size_t size) {
    bool quote = strpbrk(text, ",\"\r\n") != NULL;

    if (!quote) {
        fwrite(text, 1, size, stdout);
        return;
    }
    putchar('"');
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') {
            putchar('"');
        }
        putchar(text[i]);
    }
    putchar('"');
}

static void print_named(const char *prefix, const char *name) {
    size_t size = strlen(prefix) + strlen(name);
    char *whole = allocate(size + 1);

    strcpy(whole, prefix);
    strcat(whole, name);
    putchar(',');
    print_text(whole, size);
    free(whole);
}

static void print_all(struct groups *groups, const struct options *options, const int *digits) {
    struct group **sorted = allocate((groups->count + 1) * sizeof *sorted);
    size_t count = 0;

    for (size_t i = 0; i < groups->capacity; i++) {
        if (groups->slots[i] != NULL) {
            sorted[count++] = groups->slots[i];
        }
    }
    qsort(sorted, count, sizeof *sorted, by_name);

    if (options->group != NULL) {
        print_text(options->group, strlen(options->group));
        putchar(',');
    }
    fputs("count", stdout);
    for (size_t i = 0; i < options->sum_count; i++) {
        print_named("sum of ", options->sums[i]);
        print_named("mean of ", options->sums[i]);
    }
    putchar('\n');
    for (size_t i = 0; i < count; i++) {
        if (options->group != NULL) {
            print_text(sorted[i]->name, sorted[i]->size);
            putchar(',');
        }
        printf("%llu", sorted[i]->count);
        for (size_t j = 0; j < options->sum_count; j++) {
            print_sum_and_mean(sorted[i]->sums[j], sorted[i]->count, digits[j]);
        }
        putchar('\n');
    }
}

/* Adds the record to its group. */
static void add_record(struct groups *groups, const struct record *record,
                       const struct options *options, const size_t *columns, size_t group_column,
                       int *digits) {
    const char *name = options->group == NULL ? "" : record->text + record->start[group_column];
    size_t size = options->group == NULL ? 0 : record->size[group_column];
    struct group *group = find_or_add(groups, name, size, options->sum_count);

    group->count++;
    for (size_t i = 0; i < options->sum_count; i++) {
        const char *text = record->text + record->start[columns[i]];
        decimal number;

        if (!read_decimal(text, &number, &digits[i])) {
            fail(BAD_INPUT, "line %llu: column \"%s\": \"%.40s\" is no decimal number of at most "
                 "%d digits before and %d after the point", record->first_line, options->sums[i],
                 text, WHOLE_DIGITS, FRACTION_DIGITS);
        }
        /* Cannot overflow: see WHOLE_DIGITS. */
        group->sums[i] += number;
    }
}

int main(int argc, char **argv) {
    static struct record record;
    struct options options = read_options(argc, argv);
    struct groups groups = {0};
    size_t columns[MOST_SUMS];
    int digits[MOST_SUMS] = {0};
    size_t group_column = 0;
    size_t fields;

    record.text = allocate(MOST_RECORD);
    record.line = 1;
    skip_mark();
    if (!read_record(&record, options.separator)) {
        fail(BAD_INPUT, "line 1: the input is empty: a header line was expected");
    }
    fields = record.fields;
    for (size_t i = 0; i < options.sum_count; i++) {
        columns[i] = column(&record, options.sums[i]);
    }
    if (options.group != NULL) {
        group_column = column(&record, options.group);
    }

    while (read_record(&record, options.separator)) {
        if (record.fields != fields) {
            fail(BAD_INPUT, "line %llu: %zu fields, where the header has %zu", record.first_line,
                 record.fields, fields);
        }
        add_record(&groups, &record, &options, columns, group_column, digits);
    }

    print_all(&groups, &options, digits);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fail(NO_OUTPUT, "the output cannot be written");
    }
    return DONE;
}

// Work for a QuickJS that runs as a guest: reads lines of JSON from standard input, prints what it
// found in them, and tries what it may not.
const lines = std.in.readAsString().split("\n").filter((line) => line !== "");
const rows = lines.map((line) => JSON.parse(line));

const byKind = new Map();
for (const { kind, amount } of rows) {
  const sum = byKind.get(kind) ?? { count: 0, amount: 0 };
  byKind.set(kind, { count: sum.count + 1, amount: sum.amount + amount });
}
print("rows:", rows.length);
for (const [kind, { count, amount }] of [...byKind].sort()) {
  print(`${kind}: ${count} rows, amount ${amount}`);
}

function* fibonacci() {
  let [a, b] = [0n, 1n];
  for (;;) {
    yield a;
    [a, b] = [b, a + b];
  }
}
let nth = 0;
for (const number of fibonacci()) {
  if (nth++ === 500) {
    print("fibonacci(500):", number.toString());
    break;
  }
}

const queens = (size, row = 0, columns = 0, left = 0, right = 0) => {
  if (row === size) return 1;
  let count = 0;
  for (let free = ~(columns | left | right) & ((1 << size) - 1); free; free &= free - 1) {
    const bit = free & -free;
    count += queens(size, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1);
  }
  return count;
};
print("queens(8):", queens(8));
const swapped = "a-1 b-22 c-333".replace(/(?<name>[a-z])-(?<n>\d+)/g, "$<n>$<name>");
print("text:", swapped, "ΑΣ".toLowerCase());
print("numbers:", 0.1 + 0.2, (1e21).toString(), (255).toString(16), [10, 9, 1].sort().join());

print("reading a file:", std.open("/etc/hostname", "r") === null ? "refused" : "ALLOWED");
print("writing a file:", std.open("/tmp/out", "w") === null ? "refused" : "ALLOWED");
print("environment:", JSON.stringify(std.getenviron()));

Promise.resolve("later").then((word) => {
  print("promise:", word);
  std.err.puts("done\n");
  std.exit(5);
});

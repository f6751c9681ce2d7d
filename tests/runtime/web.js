// Functions of tests/runtime/library.cpp as WebAssembly: each line of the input is a call, each line of the output its result.
const make = require(process.argv[2]);
const readline = require("readline");

make().then((library) => {
    const call = ({ name, returns, given }) => {
        const memory = [];  // memory that is passed by its address, to be copied back and freed
        const values = given.map(({ kind, value }) => {
            if (kind === "long") return BigInt(value);
            if (kind !== "bytes") return value;
            const bytes = Buffer.from(value, "base64");
            const address = library._malloc(bytes.length + 8);
            library.HEAPU8.set(bytes, address);
            memory.push([address, bytes.length]);
            return address;
        });
        const before = process.cpuUsage();
        const result = library["_" + name](...values);
        const { user, system } = process.cpuUsage(before);
        const back = memory.map(([address, size]) => {
            const bytes = Buffer.from(library.HEAPU8.slice(address, address + size)).toString("base64");
            library._free(address);
            return bytes;
        });
        return { result: returns === "bool" ? Boolean(result) : result ?? null, back, seconds: (user + system) / 1e6 };
    };
    // The reader starts only now, because lines that arrive before a listener are lost.
    readline.createInterface({ input: process.stdin }).on("line", (line) => process.stdout.write(JSON.stringify(call(JSON.parse(line))) + "\n"));
});

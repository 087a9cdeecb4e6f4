// Updates a second of the official client for Node: node peer.mjs PORT COUNT
import yellowstone from "@triton-one/yellowstone-grpc";

const [port, count] = process.argv.slice(2);
const Client = yellowstone.default ?? yellowstone;
const client = new Client(`http://127.0.0.1:${port}`, undefined, { grpcMaxDecodingMessageSize: 64 << 20 });
await client.connect();
const stream = await client.subscribe({
  accounts: { pump: { account: [], owner: ["6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"], filters: [] } },
  slots: {}, transactions: {}, transactionsStatus: {}, blocks: {}, blocksMeta: {}, entry: {}, accountsDataSlice: [],
});
let seen = 0;
const began = process.hrtime.bigint();
const used = process.cpuUsage();
stream.on("data", ({ account, transaction }) => {
  if (account?.account?.data || transaction?.transaction?.meta) seen += 1;
  if (seen === Number(count)) {
    const wall = Number(process.hrtime.bigint() - began) / 1e9;
    const { user, system } = process.cpuUsage(used);
    console.log(JSON.stringify({ per_s: seen / wall, cpu_us: (user + system) / seen }));
    process.exit(0);
  }
});
stream.on("error", (error) => { console.error(error); process.exit(1); });

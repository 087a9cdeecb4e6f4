// Subscribes with the official client for Node and prints each update as a line of JSON: node yellowstone.mjs URL TOKEN
import yellowstone from "@triton-one/yellowstone-grpc";

const [url, token, program] = process.argv.slice(2);
const Client = yellowstone.default ?? yellowstone;
const client = new Client(url, token, undefined);
await client.connect();
const hex = (bytes) => Buffer.from(bytes).toString("hex");
console.log(JSON.stringify({ head: (await client.getSlot()).slot }));
const request = {
  accounts: {
    sized: { account: [], owner: [program], filters: [{ datasize: "3" }, { memcmp: { offset: "1", base58: "3" } }] },
  },
  slots: { all: { interslotUpdates: true } },
  transactions: { program: { vote: false, accountInclude: [program], accountExclude: [], accountRequired: [] } },
  transactionsStatus: {},
  blocks: {},
  blocksMeta: { meta: {} },
  entry: {},
  accountsDataSlice: [],
  commitment: 0,
};
const stream = await client.subscribe(request);
stream.on("data", (update) => {
  const { filters, account, transaction, slot, blockMeta, ping } = update;
  if (ping) {
    stream.write({ ...request, accounts: {}, slots: {}, transactions: {}, blocksMeta: {}, ping: { id: 1 } });
    console.log(JSON.stringify({ ping: true }));
  } else if (account) {
    const { pubkey, owner, lamports, data, writeVersion } = account.account;
    console.log(JSON.stringify({
      filters, account: { slot: account.slot, pubkey: hex(pubkey), owner: hex(owner), lamports, data: hex(data), writeVersion },
    }));
  } else if (transaction) {
    const { signature, transaction: { message }, meta } = transaction.transaction;
    console.log(JSON.stringify({
      filters,
      transaction: {
        slot: transaction.slot,
        signature: hex(signature),
        keys: message.accountKeys.map(hex),
        fee: meta.fee,
        logs: meta.logMessages,
        err: meta.err ? hex(meta.err.err) : null,
        inner: meta.innerInstructions.map(({ index, instructions }) => [index, instructions.map(({ data }) => hex(data))]),
        post: meta.postTokenBalances.map(({ mint, uiTokenAmount }) => [mint, uiTokenAmount.amount]),
      },
    }));
  } else if (slot) {
    console.log(JSON.stringify({ filters, slotUpdate: { slot: slot.slot, parent: slot.parent, status: slot.status } }));
  } else if (blockMeta) {
    console.log(JSON.stringify({ filters, blockMeta: { slot: blockMeta.slot, blockhash: blockMeta.blockhash } }));
  }
});
stream.on("error", (error) => {
  console.log(JSON.stringify({ error: { code: error.code, message: String(error.message) } }));
  process.exit(0);
});
stream.on("end", () => process.exit(0));

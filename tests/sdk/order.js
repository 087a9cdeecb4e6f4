// Does what each line asks of the JavaScript client's order methods, and prints how it ended, for the tests.

import { createInterface } from "node:readline";

const [module, url] = process.argv.slice(2);
const { Client, OrderRefused } = await import(module);
const client = new Client(url, { openMs: 3_000, retryMs: 1, retryMsMax: 20 });

async function ended(name, args) {
  try {
    if (name !== "watch") return { answer: await client[name](...args) };
    const states = [];
    for await (const order of client.watch(...args)) states.push(order);
    return { answer: states };
  } catch (error) {
    if (!(error instanceof OrderRefused)) throw error;
    const { code, key, reason, fate, retryable, errors } = error;
    return { refused: { code, key: key ?? null, reason, fate, retryable, errors } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await ended(name, args))}\n`);
}
process.exit();

// The Node peer of `headrace bench pipeline`: from the bytes of a node's frame to JSON text, through Anchor's BorshCoder.
//   node pipeline.mjs IDL.json FRAMES.jsonl [RUNS]     prints a line for each run: frames a second, µs CPU of one
// It makes one message of each account and of each TradeEvent of pump.fun, and reads no other program.
import { readFileSync } from "node:fs";
import anchor from "@coral-xyz/anchor";

const PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P";
const [idl, frames, runs = "3"] = process.argv.slice(2);
const coder = new anchor.BorshCoder(JSON.parse(readFileSync(idl)));
const lines = readFileSync(frames, "latin1").split("\n").filter(Boolean).map((line) => Buffer.from(line, "latin1"));

// Numbers and keys as text: BN and PublicKey would become hexadecimal digits and objects.
function plain(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(plain);
  if (anchor.BN.isBN(value)) return value.toString();
  if (value.toBase58) return value.toBase58();
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

// The data that pump.fun logged, by the stack of invocations.
function logged(logs) {
  const stack = [];
  const found = [];
  for (const line of logs) {
    if (line.startsWith("Program data: ")) {
      if (stack.at(-1) === PUMP) found.push(line.slice(14));
    } else if (line.startsWith("Program ")) {
      const [, program, verb] = line.split(" ", 3);
      if (verb === "invoke") stack.push(program);
      else if ((verb === "success" || verb === "failed:") && stack.at(-1) === program) stack.pop();
    }
  }
  return found;
}

function decoded(text) {
  try {
    return coder.events.decode(text);
  } catch {
    return null; // an older layout, which this decoder can't read
  }
}

for (let run = 0; run < Number(runs); run++) {
  let messages = 0;
  let bytes = 0;
  const send = (message) => {
    messages++;
    bytes += JSON.stringify(message).length;
  };
  const began = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  for (const line of lines) {
    const { context: { slot }, value } = JSON.parse(line).params.result;
    if (value.account) {
      const data = coder.accounts.decodeUnchecked("BondingCurve", Buffer.from(value.account.data[0], "base64"));
      send({ type: "event", topic: "accounts:pump", slot, key: value.pubkey, data: plain(data) });
      continue;
    }
    for (const text of logged(value.logs)) {
      const event = decoded(text);
      if (event?.name === "TradeEvent") {
        send({ type: "event", topic: "trades:pump", slot, key: value.signature, data: plain(event.data) });
      }
    }
  }
  const wall_s = Number(process.hrtime.bigint() - began) / 1e9;
  const used = process.cpuUsage(cpu);
  const cpu_us = (used.user + used.system) / lines.length;
  console.log(JSON.stringify({ per_s: lines.length / wall_s, cpu_us, messages: messages / lines.length, bytes: bytes / lines.length }));
}

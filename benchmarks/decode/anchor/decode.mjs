// The Node peer of `headrace bench decode`: decodes the same bytes with the same IDL through Anchor's BorshCoder.
// stdin: one JSON line {idl, measures: {name: {kind, type, data, rounds, json}}}, then one measure name a line;
// stdout: for each name, ns per decode (with `json`: and JSON.stringify).
import { createInterface } from "node:readline";
import anchor from "@coral-xyz/anchor";

let coder, measures;
for await (const line of createInterface({ input: process.stdin })) {
  if (!coder) {
    const order = JSON.parse(line);
    coder = new anchor.BorshCoder(order.idl);
    measures = order.measures;
    console.log(process.version);
    continue;
  }
  const { kind, type, data, rounds, json } = measures[line];
  const bytes = Buffer.from(data, "base64");
  const decode =
    kind === "event" ? () => coder.types.decode(type, bytes.subarray(8)) : () => coder.accounts.decodeUnchecked(type, bytes);
  const work = json ? () => JSON.stringify(decode()) : decode;
  const began = process.hrtime.bigint();
  for (let i = 0; i < rounds; i++) work();
  console.log(Number(process.hrtime.bigint() - began) / rounds);
}

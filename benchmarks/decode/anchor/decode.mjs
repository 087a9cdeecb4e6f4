// The Node peer of `headrace bench decode`: decodes the same bytes with the same IDL through Anchor's BorshCoder.
// stdin: one JSON line {idl, measures: {name: {kind, type, data, rounds}}}, then one measure name a line;
// stdout: for each name, ns per decode.
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
  const { kind, type, data, rounds } = measures[line];
  const bytes = Buffer.from(data, "base64");
  const decode =
    kind === "event" ? () => coder.types.decode(type, bytes.subarray(8)) : () => coder.accounts.decodeUnchecked(type, bytes);
  const began = process.hrtime.bigint();
  for (let i = 0; i < rounds; i++) decode();
  console.log(Number(process.hrtime.bigint() - began) / rounds);
}

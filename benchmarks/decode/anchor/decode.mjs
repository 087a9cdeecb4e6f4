// The Node peer of `headrace bench decode`: decodes the same bytes with the same IDL through Anchor's BorshCoder.
// stdin: one JSON line {idl, measures: {name: {kind, type, inputs, json}}}, then one measure name a line;
// stdout: for each name, ns per decode (with `json`: and JSON.stringify).
import { createInterface } from "node:readline";
import anchor from "@coral-xyz/anchor";

let coder, measures;
for await (const line of createInterface({ input: process.stdin })) {
  if (!coder) {
    const order = JSON.parse(line);
    coder = new anchor.BorshCoder(order.idl);
    measures = order.measures;
    for (const each of Object.values(measures)) each.inputs = each.inputs.map((text) => Buffer.from(text, "base64"));
    console.log(process.version);
    continue;
  }
  const { kind, type, inputs, json } = measures[line];
  const decode =
    kind === "event" ? (bytes) => coder.types.decode(type, bytes.subarray(8)) : (bytes) => coder.accounts.decodeUnchecked(type, bytes);
  const work = json ? (bytes) => JSON.stringify(decode(bytes)) : decode;
  const began = process.hrtime.bigint();
  for (const bytes of inputs) work(bytes);
  console.log(Number(process.hrtime.bigint() - began) / inputs.length);
}

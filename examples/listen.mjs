// Follow pump.fun trades from Node (22 or newer; on 20 with --experimental-websocket) while `headrace demo` runs:
//
//     node examples/listen.mjs ws://127.0.0.1:8080/ws trades:pump

import { Client } from "../clients/js/headrace.js";

const [url = "ws://127.0.0.1:8080/ws", topic = "trades:pump", count = "0"] = process.argv.slice(2);
const client = new Client(url, { onLoss: (why) => console.error(`${why}, coming back`) });
let seen = 0;

for await (const { type, data } of client.subscribe(topic)) {
  if (type === "event") {
    const paid = data.sol === null ? `${data.quote_amount} of ${data.quote_mint}` : `${data.sol} SOL`;
    console.log(data.side, data.base_amount, "of", data.mint, "for", paid);
  }
  if (type === "retract") console.log("did not happen after all:", ...data.event_ids);
  if (type === "gap") console.log("the node missed slots", data.from_slot, "to", data.to_slot, data.state);
  if (type === "lag") console.log("too slow:", data.dropped, "messages were not sent");
  if (type === "not_recovered") console.log("starting afresh: what was missed can't be had");
  if (type === "event" && ++seen === Number(count)) break;
}
client.close();

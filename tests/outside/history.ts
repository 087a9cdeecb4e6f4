// Read a topic's history page by page, and place an order, with the client that openapi-fetch makes of the document.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Frame = components["schemas"]["HistoryPage"]["items"][number];

const [orders = "", history = "", topic = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: history });

const frames: Frame[] = [];
let since: { epoch?: string; offset?: string } = {};
for (;;) {
  const path = { topic };
  const { data, error } = await client.GET("/api/topics/{topic}/history", {
    params: { path, query: { ...since, limit: 2 } },
  });
  if (!data) throw new Error(`${error.status} ${error.title}`);
  frames.push(...data.items);
  if (!data.next || frames.length >= 6) break;
  since = { epoch: data.next.epoch, offset: data.next.offset };
}

const desk = createClient<paths>({ baseUrl: orders });
const placed = await desk.POST("/api/orders/execute", {
  body: { tokenIn: "SOL", tokenOut: "USDC", amount: 1.5, slippageBps: 50 },
});
if (!placed.data) throw new Error(`${placed.error.status} ${placed.error.title}`);
const read = await desk.GET("/api/orders/{order_id}", { params: { path: { order_id: placed.data.orderId } } });

const refused = await client.GET("/api/topics/{topic}/history", { params: { path: { topic: "nope" } } });
console.log(
  JSON.stringify({
    types: frames.map(({ type }) => type),
    offsets: frames.map(({ offset }) => offset),
    order: read.data?.orderId === placed.data.orderId,
    refused: refused.error?.status,
  }),
);

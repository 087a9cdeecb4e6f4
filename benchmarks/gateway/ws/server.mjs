// A peer for `headrace bench gateway`: the broadcast loop of the documentation of `ws`, on a free port that it prints.
// A client's {"op":"pub","rate":…,"secs":…} makes it send that many messages a second to every client.
import { WebSocket, WebSocketServer } from "ws";

const filling = process.argv[2]; // what a message holds besides its time and number
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, path: "/ws", backlog: 4096 });
const now_us = () => Number(process.hrtime.bigint() / 1000n);

server.on("listening", () => console.log(server.address().port));
server.on("connection", (client) => {
  client.send('{"type":"subscribed"}');
  client.on("message", (data) => publish(JSON.parse(data)));
  client.on("error", () => {});
});

function publish({ rate, secs }) {
  const began_us = now_us();
  const total = Math.round(rate * secs);
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(total, Math.floor(((now_us() - began_us) * rate) / 1e6) + 1);
    for (; sent < due; sent++) {
      const message = `{"t":${began_us + Math.floor((sent * 1e6) / rate)},"s":${sent + 1},${filling}}`;
      for (const client of server.clients) if (client.readyState === WebSocket.OPEN) client.send(message);
    }
    if (sent === total) clearInterval(timer);
  }, 1);
}

// Follows one topic with the JavaScript client and tells what came, for the tests: in Node by lines, in a page by `heard`.

export async function follow(module, wanted, told, mayRead) {
  const { Client } = await import(module);
  const tokens = [...(wanted.tokens ?? [])];
  const token = () => {
    const next = tokens.length > 1 ? tokens.shift() : tokens[0];
    if (next === null) throw new TypeError("fetch failed"); // as when there is no network
    return next;
  };
  const client = new Client(wanted.url, {
    openMs: globalThis.process ? 3_000 : 20_000, // Node 20 never says that a handshake was reset; a busy browser is slow
    ...wanted.client,
    token: wanted.tokens ? token : wanted.client.token,
    retryMs: 1,
    retryMsMax: 20,
    onLoss: (why) => told({ lost: why }),
    onConnect: () => told({ welcomed: true }),
  });
  const subscription = client.subscribe(wanted.topic, wanted.options);
  try {
    await subscription.started();
    told({ started: subscription.position });
    if (wanted.history) told({ history: await client.history(wanted.topic, wanted.history) });
    await mayRead();
    for await (const value of subscription) {
      told({ value, position: subscription.position, catching_up: subscription.catchingUp });
      if (value.ack) client.ack(value);
    }
    told({ ended: true });
  } catch (error) {
    told({ refused: error.code ?? error.message });
  }
}

if (globalThis.process?.argv) {
  const [module, wanted] = process.argv.slice(2);
  const told = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
  const mayRead = () => new Promise((resolve) => process.stdin.once("data", resolve));
  await follow(module, JSON.parse(wanted), told, mayRead);
  process.exit();
}

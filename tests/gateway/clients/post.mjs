// Posts each body after the first argument to it with fetch; the last one as a stream of chunks. Own work.
const [url, ...bodies] = process.argv.slice(2);
for (const [at, text] of bodies.entries()) {
  const streamed = at === bodies.length - 1;
  const body = streamed ? new Blob([text]).stream() : text;
  const headers = { "content-type": "application/json", "idempotency-key": `node-${at}` };
  const answer = await fetch(url, { method: "POST", headers, body, ...(streamed && { duplex: "half" }) });
  console.log(`${answer.status} ${await answer.text()}`);
}

// SPDX-License-Identifier: Apache-2.0
// calls.proto for grpc-js.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");

const METHODS = {
  unary: "makeUnaryRequest",
  client_stream: "makeClientStreamRequest",
  server_stream: "makeServerStreamRequest",
  bidi: "makeBidiStreamRequest",
};
const ALGORITHMS = { none: 0, deflate: 1, gzip: 2 };

const same = (bytes) => bytes;

function metadataOf(entries) {
  const metadata = new grpc.Metadata();
  for (const { name, value } of entries) {
    const bytes = Buffer.from(value, "base64");
    metadata.add(name, name.endsWith("-bin") ? bytes : bytes.toString("latin1"));
  }
  return metadata;
}

function entriesOf(metadata) {
  return Object.keys(metadata.getMap()).flatMap((name) =>
    metadata.get(name).map((value) => ({ name, value: Buffer.from(value, "latin1").toString("base64") })),
  );
}

function make(client, call) {
  const clientStreams = call.kind === "client_stream" || call.kind === "bidi";
  const serverStreams = call.kind === "server_stream" || call.kind === "bidi";
  const messages = call.messages.map((message) => Buffer.from(message, "base64"));
  const options = { deadline: Date.now() + call.timeout_s * 1000 };
  const responses = [];
  let initial = new grpc.Metadata();

  function onResponse(response) {
    responses.push(response.toString("base64"));
    if (call.cancel_on === "response") ongoing.cancel();
  }

  const words = [call.path, same, same];
  if (!clientStreams) words.push(messages[0]);
  words.push(metadataOf(call.metadata), options);
  if (!serverStreams) words.push((error, response) => response !== undefined && onResponse(response));
  const ongoing = client[METHODS[call.kind]](...words);
  if (serverStreams) ongoing.on("data", onResponse).on("error", () => {}); // whose status comes by itself
  if (clientStreams) {
    messages.forEach((message) => ongoing.write(message));
    ongoing.end();
  }
  const timer = call.cancel_after_s > 0 && setTimeout(() => ongoing.cancel(), call.cancel_after_s * 1000);
  return new Promise((resolve) => {
    ongoing.on("metadata", (metadata) => {
      initial = metadata;
      if (call.cancel_on === "metadata") ongoing.cancel();
    });
    ongoing.on("status", ({ code, details, metadata }) => {
      clearTimeout(timer);
      resolve({
        code,
        details,
        initial_metadata: entriesOf(initial),
        trailing_metadata: entriesOf(metadata),
        responses,
      });
    });
  });
}

async function main() {
  const run = JSON.parse(fs.readFileSync(0));
  const clients = {}; // by compression, which grpc-js knows for whole channels only
  for (const [name, algorithm] of Object.entries(ALGORITHMS)) {
    clients[name] = new grpc.Client(run.target, grpc.credentials.createInsecure(), {
      "grpc.default_compression_algorithm": algorithm,
      "grpc.max_receive_message_length": -1,
    });
  }
  const outcomes = [];
  for (const call of run.calls) {
    const outcome = make(clients[call.compression], call);
    outcomes.push(run.at_once ? outcome : await outcome);
  }
  const output = JSON.stringify({ outcomes: await Promise.all(outcomes) });
  Object.values(clients).forEach((client) => client.close());
  process.stdout.write(output);
}

main();

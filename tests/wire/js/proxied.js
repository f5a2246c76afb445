// npm sockjs-client, as a page uses it, with one transport through a proxy: node proxied.js BASE_URL TRANSPORTS COUNT
//
// BASE_URL has the token in its query and the conversation in its fragment. Sends COUNT messages into the conversation and
// waits until all of them came back, in order. Prints the transport used.

import { Stomp } from "@stomp/stompjs";
import SockJS from "sockjs-client";

const [base, transports, count] = process.argv.slice(2);
const conversation = new URL(base).hash.slice(1);
const url = base.split("#")[0];

let socket;
const client = Stomp.over(() => {
  socket = new SockJS(url, null, { transports: transports === "any" ? undefined : transports.split(",") });
  return socket;
});
client.debug = () => {};
client.reconnect_delay = 0;
client.onWebSocketClose = (event) => {
  console.error(`closed: ${event.code} ${event.reason}`);
  process.exit(1);
};

client.connect({}, () => {
  const got = [];
  client.subscribe("/user/queue/messages", (message) => {
    got.push(JSON.parse(message.body).content);
    if (got.length === Number(count)) {
      const expect = Array.from({ length: Number(count) }, (_, number) => `number ${number}`);
      if (JSON.stringify(got) !== JSON.stringify(expect)) {
        console.error("lost, doubled or out of order:", got);
        process.exit(1);
      }
      console.log(socket.transport);
      process.exit(0);
    }
  });
  for (let number = 0; number < Number(count); number++) {
    client.send(`/app/conversations/${conversation}/send`, { echo: "true" }, JSON.stringify({ content: `number ${number}` }));
  }
});

// The parts that the guide's code leaves to the application: `accessToken`, `displayMessage` and `reconnect`. Tests read
// `window.guide`.

import SockJS from './sockjs-client.js';
import { Client } from './stompjs.js';

const SERVER = 'http://localhost:8080';
const ORIGIN = new URL(import.meta.url).origin;

window.guide = { displayed: [], connections: 0, transport: undefined, client: undefined };

window.displayMessage = (message) => window.guide.displayed.push(message);

let runs = 0;
let waiting;

/** Runs the same code again. */
window.reconnect = async () => {
  clearTimeout(waiting);
  waiting = undefined;
  const client = await import(`${ORIGIN}/client.js?run=${++runs}`);
  window.guide.client = client;
  // This stompjs reports an ERROR, but not a lost connection, to the callback that the guide passes.
  client.stompClient.onWebSocketClose = () => (waiting ??= setTimeout(window.reconnect, 200));
  const connected = client.stompClient.onConnect;
  client.stompClient.onConnect = (frame) => {
    window.guide.transport = client.stompClient.webSocket.transport;
    connected(frame);
    // Its RECEIPT proves that the guide's earlier subscription is active too.
    client.stompClient.watchForReceipt(`stands-${runs}`, () => (window.guide.connections += 1));
    client.stompClient.subscribe('/topic/fence', () => {}, { receipt: `stands-${runs}` });
  };
};

/** stompjs's own client, with SockJS as its socket, which keeps up with a conversation whatever happens to the server. */
window.follow = (token, conversation, begin) => {
  const state = { shown: [], doubled: [], connections: 0, transport: undefined, unsent: new Map() };
  window.followed = state;
  let last = begin;
  const known = new Set([begin]);

  const take = (message) => {
    if (message.conversationId !== conversation || known.has(message.id)) return;
    known.add(message.id);
    state.shown.push(message.content);
  };

  /** Everything after the last message that was seen before this connection. */
  const catchUp = async () => {
    for (let after = last, more = true; more; ) {
      const response = await fetch(`${SERVER}/conversations/${conversation}/messages?after=${after}&limit=5`, {
        headers: { Authorization: `Bearer ${token}` },
      });
      const page = await response.json();
      page.messages.forEach(take);
      [after, more] = [page.nextCursor, page.hasMore];
      last = after;
    }
  };

  const client = new Client({
    webSocketFactory: () => new SockJS(`${SERVER}/ws?token=${token}`),
    reconnectDelay: 200,
    onConnect() {
      state.transport = client.webSocket.transport;
      const live = new Set();
      const early = [];
      let caughtUp = false;
      client.watchForReceipt('stands', async () => {
        await catchUp();
        caughtUp = true;
        early.forEach(take);
        state.connections += 1;
      });
      client.subscribe('/user/queue/messages', ({ body }) => {
        const message = JSON.parse(body);
        if (live.has(message.id)) state.doubled.push(message.content);
        live.add(message.id);
        // After the fetched messages, so that the order is the conversation's.
        if (caughtUp) [last] = [message.id, take(message)];
        else early.push(message);
      }, { receipt: 'stands' });
      for (const content of state.unsent.keys()) say(content);
    },
  });

  const say = (content) => {
    const id = state.unsent.get(content);
    client.watchForReceipt(id, () => state.unsent.delete(content));
    const headers = { receipt: id, 'client-message-id': id, echo: 'true' };
    client.publish({ destination: `/app/conversations/${conversation}/send`, headers, body: JSON.stringify({ content }) });
  };

  /** Sends until it is known to be stored. */
  state.say = (content) => {
    state.unsent.set(content, `say ${content}`);
    if (client.connected) say(content);
  };
  client.activate();
};

/** Subscribes to a destination, and reports how the server ended the session. */
window.trespass = (token, destination) =>
  new Promise((resolve) => {
    const ended = { leaked: 0 };
    const client = new Client({
      webSocketFactory: () => new SockJS(`${SERVER}/ws?token=${token}`),
      reconnectDelay: 0,
      onConnect: () => client.subscribe(destination, () => (ended.leaked += 1)),
      onStompError: ({ headers }) => (ended.error = headers.message),
      onWebSocketClose: ({ code }) => resolve({ ...ended, code }),
    });
    client.activate();
  });

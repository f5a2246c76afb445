// The guide's own client: Stomp.over(ws), connect({}, ...), subscribe, send, and its list of test scenarios, word by word.
// SockJS is replaced by ws here: both are WebSocket objects to Stomp.over.

import assert from 'node:assert/strict';
import { Stomp } from '@stomp/stompjs';
import WebSocket from 'ws';

import { mint, users } from './support/server.js';
import { Inbox, within } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it } = wire;

/** The guide's step 2 and 3: a connected client of the old API. */
async function over(accessToken, headers = {}) {
  const socket = new WebSocket(wire.server.endpoint(accessToken && `token=${accessToken}`));
  const stompClient = Stomp.over(() => socket);
  stompClient.debug = () => {};
  const closed = new Inbox('close');
  const error = new Inbox('ERROR');
  const connected = new Promise((resolve, reject) => {
    stompClient.connect(
      headers,
      resolve,
      (frame) => {
        error.push(frame);
        reject(new Error(`ERROR: ${frame.headers.message}`));
      },
      (event) => {
        closed.push(event);
        reject(new Error(`closed: ${event.code}`));
      },
    );
  });
  const result = { stompClient, closed, error };
  try {
    result.frame = await within(connected, 'connect');
  } catch (fault) {
    fault.result = result;
    throw fault;
  }
  return result;
}

/** The guide's step 4. */
function displayed(stompClient, destination = '/user/queue/messages') {
  const messages = new Inbox(destination);
  stompClient.subscribe(destination, (message) => messages.push(JSON.parse(message.body)));
  return messages;
}

/** The guide's step 5. */
async function sendMessage(accessToken, conversationId, content) {
  return fetch(`${wire.server.base}/api/conversations/${conversationId}/messages`, {
    method: 'POST',
    headers: { Authorization: 'Bearer ' + accessToken, 'Content-Type': 'application/json' },
    body: JSON.stringify({ content }),
  });
}

function end(...clients) {
  for (const { stompClient } of clients) stompClient.forceDisconnect();
}

it('test 1: connect with a valid JWT', async () => {
  const [alice] = users(1);
  const client = await over(mint(alice));
  assert.equal(client.frame.command, 'CONNECTED');
  assert.equal(client.frame.headers['user-name'], String(alice));
  await within(new Promise((resolve) => client.stompClient.disconnect(resolve)), 'disconnect');
});

it('test 1: connect with an invalid JWT fails', async () => {
  await assert.rejects(over('not-a-token'), /closed: 1006/);
  const fault = await over(undefined, { Authorization: 'Bearer not-a-token' }).catch((error) => error);
  assert.match(fault.message, /ERROR|closed: 1008/);
  assert.equal((await fault.result.closed.next()).code, 1008);
});

it('test 1: connect without a JWT fails', async () => {
  const fault = await over(undefined).catch((error) => error);
  assert.match(fault.message, /ERROR|closed: 1008/);
  assert.equal((await fault.result.closed.next()).code, 1008);
});

it("test 2: subscribe to the user's own messages", async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const client = await over(mint(bob));
  const messages = displayed(client.stompClient);
  await within(new Promise((resolve) => {
    client.stompClient.onreceipt = resolve;
    client.stompClient.subscribe('/topic/fence', () => {}, { receipt: 'fence' });
  }), 'RECEIPT');
  const response = await sendMessage(mint(alice), conversation, 'Hello');
  assert.equal(response.status, 201);
  const msg = await messages.next();
  assert.equal(msg.content, 'Hello');
  assert.equal(msg.senderId, alice);
  assert.equal(msg.conversationId, conversation);
  end(client);
});

it("test 2: subscribing to another user's private queue fails", async () => {
  const [alice, bob] = users(2);
  const client = await over(mint(alice));
  client.stompClient.subscribe(`/user/${bob}/queue/messages`, () => assert.fail('leaked'));
  assert.ok((await client.error.next()).headers.message);
  assert.equal((await client.closed.next()).code, 1008);
});

it("test 3: a message to the user's own conversation is broadcast", async () => {
  const [alice, bob] = users(2);
  const conversationId = await wire.server.conversation(alice, bob);
  const [a, b] = [await over(mint(alice)), await over(mint(bob))];
  const messages = displayed(b.stompClient);
  const topic = displayed(b.stompClient, `/topic/conversation/${conversationId}`);
  await within(new Promise((resolve) => {
    b.stompClient.onreceipt = resolve;
    b.stompClient.subscribe('/topic/fence', () => {}, { receipt: 'fence' });
  }), 'RECEIPT');
  a.stompClient.send(`/app/conversations/${conversationId}/send`, {}, JSON.stringify({ content: 'by conversation' }));
  a.stompClient.send('/app/send', {}, JSON.stringify({ conversationId, content: 'by body' }));
  for (const content of ['by conversation', 'by body']) {
    assert.equal((await messages.next()).content, content);
    assert.equal((await topic.next()).content, content);
  }
  end(a, b);
});

it('test 3: sending to a foreign conversation fails', async () => {
  const [alice, bob, mallory] = users(3);
  const conversationId = await wire.server.conversation(alice, bob);
  const client = await over(mint(mallory));
  const errors = displayed(client.stompClient, '/user/queue/errors');
  client.stompClient.send(`/app/conversations/${conversationId}/send`, {}, JSON.stringify({ content: 'let me in' }));
  assert.equal((await errors.next()).code, 'not_participant');
  assert.ok(client.stompClient.connected);
  assert.equal((await sendMessage(mint(mallory), conversationId, 'let me in')).status, 403);
  assert.deepEqual(await wire.server.history(alice, conversationId), []);
  end(client);
});

it('test 5: both tabs of one user receive', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const tabs = [await over(mint(bob)), await over(mint(bob))];
  const inboxes = tabs.map(({ stompClient }) => displayed(stompClient));
  for (const { stompClient } of tabs) {
    await within(new Promise((resolve) => {
      stompClient.onreceipt = resolve;
      stompClient.subscribe('/topic/fence', () => {}, { receipt: 'fence' });
    }), 'RECEIPT');
  }
  await sendMessage(mint(alice), conversation, 'to both');
  for (const inbox of inboxes) assert.equal((await inbox.next()).content, 'to both');
  end(...tabs);
});

it("the guide's heartbeat is a sign of life and nothing else", async () => {
  const [alice] = users(1);
  const client = await over(mint(alice));
  client.stompClient.send('/app/heartbeat', {}, '');
  await within(new Promise((resolve) => {
    client.stompClient.onreceipt = resolve;
    client.stompClient.send('/app/heartbeat', { receipt: 'beat' }, '');
  }), 'RECEIPT');
  end(client);
});

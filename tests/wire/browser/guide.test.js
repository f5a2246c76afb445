// The guide's own client, word for word, with npm's sockjs-client and stompjs in a page of another origin, over
// every transport that the browser has. The browser reaches the server at the address in the guide's code.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { mint, users } from '../js/support/server.js';
import { NETWORK, eventually, suite } from './support/browser.js';
import { startOrigin } from './support/origin.js';

const TRANSPORTS = [
  undefined,
  'websocket',
  'xhr-streaming',
  'xhr-polling',
  'eventsource',
  'iframe-eventsource',
  'iframe-xhr-polling',
  'jsonp-polling',
];

/** Texts that JSON, STOMP, SockJS's packets or its event streams escape. */
const AWKWARD = ['plain', '100 % and %0A', '"quotes" \\ and : colons', 'two\nlines', '\u2028 \u200b \ufeff', '🦉 ä 漢'];

// Warnings about the guide's way of creating a client, and about SockJS's iframe page in old browsers.
const REMARKS = /Stomp\.over did not receive a factory|document\.domain mutation is ignored/;
// A server that ends answers 503; a session from before a restart is gone, and some transports ask for it once more.
const GONE = /status of (404|503) .*\/ws\/\d+\/\w+\/(xhr|jsonp|eventsource)/;
const RESTARTS = new RegExp([NETWORK, REMARKS, GONE].map(({ source }) => source).join('|'));

const other = await startOrigin();
after(() => other.close());

const wire = suite({ 'sockjs.client_url': `${other.origin}/vendor/sockjs.js` }, (server) => [
  `--host-resolver-rules=MAP localhost:8080 127.0.0.1:${server.port}`,
]);
const { it } = wire;

/** Opens the page; its clients use only `transport`. */
async function open(transport, page) {
  const opened = page ?? (await wire.page());
  opened.allowed = REMARKS;
  if (transport) await opened.addInitScript((name) => (window.transports = [name]), transport);
  await opened.goto(other.origin);
  return opened;
}

/** Runs the guide's code in a page for a user. */
async function run(transport, token, page) {
  const opened = await open(transport, page);
  await opened.evaluate((accessToken) => {
    window.accessToken = accessToken;
    return window.reconnect();
  }, token);
  await connected(opened, 1);
  assert.equal(await opened.evaluate(() => window.guide.transport), transport ?? 'websocket');
  return opened;
}

const connected = (page, count) => eventually(() => page.evaluate(() => window.guide.connections), count, 'connections');
const displayed = (page) => page.evaluate(() => window.guide.displayed.map(({ content }) => content));

for (const transport of TRANSPORTS) {
  const over = transport ?? 'its own choice';

  it(`the guide's code talks over ${over}, and again after a restart`, async () => {
    const [alice, bob] = users(2);
    const conversation = await wire.server.conversation(alice, bob);
    const page = await run(transport, mint(bob));
    for (const content of AWKWARD) await wire.server.post(alice, conversation, content);
    await eventually(() => displayed(page), AWKWARD);

    for (const content of AWKWARD) {
      await page.evaluate(([id, text]) => window.guide.client.sendViaWebSocket(id, text), [conversation, content]);
    }
    const said = async () => (await wire.server.history(alice, conversation)).filter(({ senderId }) => senderId === bob).map(({ content }) => content);
    await eventually(said, AWKWARD);
    await page.evaluate((id) => window.guide.client.sendMessage(id, 'over REST'), conversation);
    await eventually(said, [...AWKWARD, 'over REST']);
    // A message sent over REST reaches all of the sender's sessions.
    await eventually(() => displayed(page), [...AWKWARD, 'over REST']);

    page.allowed = RESTARTS;
    const expect = [...AWKWARD, 'over REST'];
    for (const [round, signal] of ['SIGTERM', 'SIGKILL'].entries()) {
      await wire.server.end(signal);
      await wire.server.launch();
      await connected(page, round + 2);
      await wire.server.post(alice, conversation, `after ${signal}`);
      expect.push(`after ${signal}`);
      await eventually(() => displayed(page), expect);
    }
  });

  it(`stompjs's client over ${over}: messages sent while the server restarted are stored once`, async () => {
    const [alice, bob] = users(2);
    const conversation = await wire.server.conversation(alice, bob);
    const { id: begin } = await wire.server.post(alice, conversation, 'begin');
    const page = await open(transport);
    page.allowed = RESTARTS;
    await page.evaluate(([...call]) => window.follow(...call), [mint(bob), conversation, begin]);
    const state = (name) => page.evaluate((key) => window.followed[key], name);
    await eventually(() => state('connections'), 1);
    assert.equal(await state('transport'), transport ?? 'websocket');

    // Alice retries until each message is acknowledged; Bob's client does the same in the page.
    const post = async (content) => {
      for (;;) {
        const answer = await wire.server
          .rest(mint(alice), 'POST', `/conversations/${conversation}/messages`, { content, clientMessageId: content })
          .catch(() => undefined);
        if (answer?.status === 200 || answer?.status === 201) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const restart = async (signal) => {
      await wire.server.end(signal);
      await wire.server.launch();
    };
    for (let index = 0; index < 60; index += 1) {
      await page.evaluate((content) => window.followed.say(content), `bob ${index}`);
      if (index === 40) await eventually(() => state('connections'), 2);
      const restarted = index === 20 ? restart('SIGKILL') : index === 40 ? restart('SIGTERM') : undefined;
      await post(`alice ${index}`);
      await restarted;
    }
    await eventually(() => page.evaluate(() => window.followed.unsent.size), 0, 'unsent');
    const stored = (await wire.server.expect(200, mint(alice), 'GET', `/conversations/${conversation}/messages?after=${begin}&limit=100`)).messages;
    const more = await wire.server.expect(200, mint(alice), 'GET', `/conversations/${conversation}/messages?after=${stored.at(-1).id}&limit=100`);
    const history = [...stored, ...more.messages].map(({ content }) => content);
    for (const name of ['alice', 'bob']) {
      const expect = Array.from({ length: 60 }, (_, index) => `${name} ${index}`);
      assert.deepEqual(history.filter((content) => content.startsWith(name)).sort(), expect.sort(), 'stored once each');
    }
    await eventually(() => state('shown'), history);
    assert.deepEqual(await state('doubled'), []);
    await eventually(() => state('connections'), 3);
  });

  it(`both tabs of a user receive over ${over}`, async () => {
    const [alice, bob] = users(2);
    const conversation = await wire.server.conversation(alice, bob);
    const first = await run(transport, mint(bob));
    const second = await run(transport, mint(bob), await wire.tab(first));
    await wire.server.post(alice, conversation, 'to both');
    for (const tab of [first, second]) await eventually(() => displayed(tab), ['to both']);
    await first.evaluate((id) => window.guide.client.sendViaWebSocket(id, 'from one to the other'), conversation);
    await eventually(() => displayed(second), ['to both', 'from one to the other']);
    assert.deepEqual(await displayed(first), ['to both']);
  });

  it(`another user's queue is refused over ${over}`, async () => {
    const [alice, bob, mallory] = users(3);
    const conversation = await wire.server.conversation(alice, bob);
    const page = await open(transport);
    for (const destination of [`/user/${bob}/queue/messages`, '/user/*/queue/messages', '/user/**', `/topic/conversation/${conversation}`]) {
      const refused = page.evaluate(([...call]) => window.trespass(...call), [mint(mallory), destination]);
      await wire.server.post(alice, conversation, 'between us');
      const { error = 'no ERROR', ...ended } = await refused;
      assert.deepEqual(ended, { leaked: 0, code: 1008 }, `${destination}: ${error}`);
      assert.match(error, /destination/);
    }
  });
}

it('a page of an origin that is not allowed gets nowhere', async () => {
  const [bob] = users(1);
  const page = await open(undefined);
  page.allowed = /CORS|ERR_FAILED|status of 403|403/;
  await wire.server.end('SIGTERM');
  wire.server.settings['cors.origins'] = 'https://app.example.com';
  await wire.server.launch();
  try {
    const answers = await page.evaluate(async (token) => {
      const read = (path, options) => fetch(`http://localhost:8080${path}`, options).then(() => 'read', () => 'refused');
      const socket = new Promise((resolve) => {
        const raw = new WebSocket(`ws://localhost:8080/ws/websocket?token=${token}`);
        raw.onopen = () => resolve('open');
        raw.onclose = () => resolve('refused');
      });
      const sockjs = new Promise((resolve) => {
        const session = new window.SockJS(`http://localhost:8080/ws?token=${token}`);
        session.onopen = () => resolve('open');
        session.onclose = () => resolve('refused');
      });
      const headers = { Authorization: `Bearer ${token}` };
      return [await read('/ws/info'), await read('/users/me', { headers }), await socket, await sockjs];
    }, mint(bob));
    assert.deepEqual(answers, ['refused', 'refused', 'refused', 'refused']);
  } finally {
    await wire.server.end('SIGTERM');
    delete wire.server.settings['cors.origins'];
    await wire.server.launch();
  }
});

// The page at `/`, as people use it.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

import { Server, mint, remember, users } from '../js/support/server.js';
import { NETWORK, eventually, picture, rememberLogin, suite } from './support/browser.js';
import { Person, phone } from './support/chat.js';

const wire = suite();
const { it } = wire;

const person = async (options) => new Person(await wire.page(options), wire.server);
const someone = async (options) => (await person(options)).logIn(phone());

/** Two people with a conversation that both have open. */
async function pair(options) {
  const [alice, bob] = [await someone(options), await someone(options)];
  await alice.begin([bob.user]);
  await bob.reload();
  await bob.open('User');
  return [alice, bob];
}

/** A conversation of a person with a user who only uses REST. */
async function withRobot(options) {
  const alice = await someone(options);
  const [robot] = users(1);
  const conversation = await wire.server.conversation(robot, alice.user);
  await alice.reload();
  await alice.open('User');
  return { alice, robot, conversation };
}

it('is served with a strict policy, and not again to browsers that have it', async () => {
  const get = (path, headers = {}, method = 'GET') => fetch(wire.server.base + path, { method, headers });
  const page = await get('/');
  assert.equal(page.status, 200);
  assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
  assert.match(page.headers.get('content-security-policy'), /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(page.headers.get('referrer-policy'), 'no-referrer');
  const tag = page.headers.get('etag');
  const again = await get('/', { 'If-None-Match': tag });
  assert.deepEqual([again.status, await again.text(), again.headers.get('etag')], [304, '', tag]);
  const head = await get('/', {}, 'HEAD');
  assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(Buffer.byteLength(await page.text()))]);
  const post = await get('/', {}, 'POST');
  assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD']);
  assert.equal((await get('/page/nothing.js')).status, 404);
  assert.equal((await get('/page/chat.js')).headers.get('content-type'), 'text/javascript; charset=utf-8');
});

it('is missing when it is disabled, and is served in production', async () => {
  const production = { profile: 'production', 'page.enabled': true };
  for (const [settings, status] of [[{ 'page.enabled': false }, 404], [production, 200]]) {
    const server = await Server.start(settings);
    try {
      for (const path of ['/', '/page/chat.js']) assert.equal((await fetch(server.base + path)).status, status, path);
    } finally {
      await server.stop();
    }
  }
});

it('logs in by one-time code, and reports errors', async () => {
  const alice = await person();
  await alice.visit();
  const { page } = alice;
  page.allowed = /status of 40[01]/;
  await page.getByLabel('Phone number').fill('12');
  await page.getByRole('button', { name: 'Send code' }).click();
  await page.getByRole('alert').filter({ hasText: /phone/ }).waitFor();
  await page.getByLabel('Phone number').fill(phone());
  await page.getByRole('button', { name: 'Send code' }).click();
  await page.getByLabel('One-time code').fill('999999');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').filter({ hasText: /code/ }).waitFor();
  await page.getByLabel('One-time code').fill('000000');
  await page.getByRole('button', { name: 'Log in' }).click();
  await alice.isState('connected');
  await rememberLogin(page);
});

it('logs in with a token from elsewhere', async () => {
  const [user] = users(1);
  const alice = await (await person()).enter(mint(user));
  assert.equal(alice.user, user);
});

it('two people talk, and see read marks', async () => {
  const [alice, bob] = await pair();
  await bob.page.bringToFront();
  await alice.say('Hello, Bob');
  await bob.hears('Hello, Bob');
  await alice.hears('Hello, Bob');
  await eventually(() => alice.status(), 'read');
  await bob.say('Hello, Alice\nand good day');
  await alice.hears('Hello, Bob', 'Hello, Alice\nand good day');
  await bob.hears('Hello, Bob', 'Hello, Alice\nand good day');
});

it('shows the unread count until the messages are read', async () => {
  const { alice, robot, conversation } = await withRobot();
  const { page } = alice;
  const others = await wire.server.conversation(users(1)[0], alice.user);
  await alice.reload();
  for (const content of ['one', 'two', 'three']) await wire.server.post(robot, conversation, content);
  const entry = page.locator(`[data-conversation="${conversation}"]`);
  await eventually(() => entry.locator('.badge').allTextContents(), ['3 unread']);
  await eventually(() => page.title(), '(3) Tidings');
  assert.match(await entry.textContent(), /three/);
  const marks = async () => (await wire.server.expect(200, mint(robot), 'GET', `/conversations/${conversation}/read-marks`)).readMarks;
  assert.ok(!(await marks()).some(({ userId }) => userId === alice.user));
  await entry.click();
  await alice.hears('one', 'two', 'three');
  const [, , last] = await wire.server.history(robot, conversation);
  await eventually(async () => (await marks()).find(({ userId }) => userId === alice.user)?.messageId, last.id);
  await eventually(() => entry.locator('.badge').count(), 0);
  await eventually(() => page.title(), 'Tidings');
  assert.ok(others);
});

it('a group shows the sender and the number of readers', async () => {
  const [alice, bob, carol] = [await someone(), await someone(), await someone()];
  await alice.begin([bob.user, carol.user], 'Tea at five');
  for (const other of [bob, carol]) await other.reload();
  await bob.open('Tea at five');
  await alice.say('Who comes?');
  await bob.hears('Who comes?');
  await eventually(() => alice.status(), 'read by 1 of 2');
  await carol.open('Tea at five');
  await eventually(() => alice.status(), 'read by 2 of 2');
  await bob.say('I do');
  await alice.hears('Who comes?', 'I do');
  await eventually(() => alice.page.locator('.from:not(.unseen)').allTextContents().then((names) => names.map((name) => name.replace(/\u2009/g, ''))), [`User ${bob.user}`]);
});

it('shows any text of users as text', async () => {
  const [alice, bob] = await pair();
  const texts = ['<img src=x onerror="document.title=1">', '<script>document.title=1</script>', 'a < b & c', '100 % "quotes" \\ \u2028 🦉'];
  for (const text of texts) await alice.say(text);
  await bob.hears(...texts);
  await alice.hears(...texts);
  assert.equal(await bob.page.locator('#messages img, #messages script').count(), 0);
  assert.equal(await bob.page.title(), 'Tidings');
});

it('scrolls back through the history, and keeps its place', async () => {
  const { alice, robot, conversation } = await withRobot();
  const texts = Array.from({ length: 170 }, (_, index) => `message ${index}`);
  for (const text of texts) await wire.server.post(robot, conversation, text);
  const { page } = alice;
  await alice.reload();
  await alice.open('User');
  await alice.hears(...texts.slice(-50));
  const scroll = page.locator('#scroll');
  const atEnd = () => scroll.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight < 2);
  assert.ok(await atEnd(), 'opens at its end');
  for (const count of [100, 150, 170]) {
    const before = await page.locator('.message .text').first().textContent();
    await scroll.evaluate((box) => (box.scrollTop = 0));
    await alice.hears(...texts.slice(-count));
    const place = await page.locator('.message').getByText(before, { exact: true }).boundingBox();
    const box = await scroll.boundingBox();
    assert.ok(place.y >= box.y && place.y < box.y + box.height, `the former top message is still in view: ${place.y}`);
  }
  await page.getByText('This is where it began').waitFor();
  // A new message does not move the view away from the messages being read.
  const top = await scroll.evaluate((box) => (box.scrollTop = 200));
  await wire.server.post(robot, conversation, 'and another');
  await page.getByRole('button', { name: 'New messages' }).waitFor();
  assert.equal(await scroll.evaluate((box) => box.scrollTop), top);
  await page.getByRole('button', { name: 'New messages' }).click();
  assert.ok(await atEnd());
  await page.getByRole('button', { name: 'New messages' }).waitFor({ state: 'hidden' });
});

it('resumes the login after a reload', async () => {
  const [alice, bob] = await pair();
  await alice.say('before');
  await bob.hears('before');
  await bob.reload();
  await bob.open('before');
  await bob.hears('before');
  await alice.say('after');
  await bob.hears('before', 'after');
});

it('reconnects when the network returns, and shows each message once', async () => {
  const { alice, robot, conversation } = await withRobot();
  const { page } = alice;
  page.allowed = NETWORK;
  await wire.server.post(robot, conversation, 'before');
  await alice.hears('before');
  await page.context().setOffline(true);
  await alice.isState('reconnecting');
  assert.ok(await page.getByRole('button', { name: 'Send', exact: true }).isDisabled());
  await page.getByRole('textbox', { name: 'Message' }).fill('kept while away');
  for (const content of ['missed 1', 'missed 2']) await wire.server.post(robot, conversation, content);
  await page.context().setOffline(false);
  await alice.isState('connected');
  await alice.hears('before', 'missed 1', 'missed 2');
  await page.getByRole('button', { name: 'Send', exact: true }).click();
  await alice.hears('before', 'missed 1', 'missed 2', 'kept while away');
  await wire.server.post(robot, conversation, 'live again');
  await alice.hears('before', 'missed 1', 'missed 2', 'kept while away', 'live again');
});

it('resends messages that a crash of the server left unanswered, and they are stored once', async () => {
  const { alice, conversation, robot } = await withRobot();
  const { page } = alice;
  page.allowed = NETWORK;
  // A stopped process accepts bytes and answers nothing.
  wire.server.process.kill('SIGSTOP');
  const texts = ['is it stored', 'or is it not'];
  for (const text of texts) await alice.say(text);
  await eventually(() => alice.page.locator('.status').allTextContents(), ['sending…', 'sending…']);
  await wire.server.end('SIGKILL');
  await alice.isState('reconnecting');
  await alice.hears(...texts);
  await wire.server.launch();
  await alice.isState('connected');
  await eventually(() => alice.status(), 'sent');
  await alice.hears(...texts);
  assert.deepEqual((await wire.server.history(robot, conversation)).map(({ content }) => content), texts);
  await alice.reload();
  await alice.open('or is it not');
  await alice.hears(...texts);
});

it('waits longer after each failed attempt, unless the user retries at once', async () => {
  const alice = await someone();
  const { page } = alice;
  page.allowed = NETWORK;
  const attempts = [];
  page.on('websocket', () => attempts.push(performance.now()));
  await wire.server.end('SIGKILL');
  await eventually(() => attempts.length, 4);
  // Each pause is between a half and the whole of one that doubles; a second on top for a busy machine.
  for (const [index, pause] of [1_000, 2_000, 4_000].entries()) {
    const waited = attempts[index + 1] - attempts[index];
    assert.ok(waited > pause / 2 - 50 && waited < pause + 1_000, `${waited} ms before attempt ${index + 2}`);
  }
  await wire.server.launch();
  const began = performance.now();
  await page.getByRole('button', { name: 'Connect now' }).click();
  await alice.isState('connected');
  assert.ok(performance.now() - began < 3_500, 'sooner than the pause, which is four seconds or more');
});

it('keeps unsent messages over a reload', async () => {
  const { alice, conversation, robot } = await withRobot();
  const { page } = alice;
  page.allowed = NETWORK;
  wire.server.process.kill('SIGSTOP');
  await alice.say('hold on to this');
  await eventually(() => alice.status(), 'sending…');
  await wire.server.end('SIGKILL');
  await alice.isState('reconnecting');
  await wire.server.launch();
  await alice.reload();
  await alice.open('User');
  await alice.hears('hold on to this');
  await eventually(() => alice.status(), 'sent');
  assert.deepEqual((await wire.server.history(robot, conversation)).map(({ content }) => content), ['hold on to this']);
});

it('fetches missed messages after the server was gone for long', async () => {
  const { alice, robot, conversation } = await withRobot();
  const { page } = alice;
  page.allowed = NETWORK;
  await wire.server.post(robot, conversation, 'before');
  await alice.hears('before');
  await page.context().setOffline(true);
  await alice.isState('reconnecting');
  const missed = Array.from({ length: 230 }, (_, index) => `missed ${index}`);
  for (const content of missed) await wire.server.post(robot, conversation, content);
  await page.context().setOffline(false);
  await alice.hears('before', ...missed);
});

it('a refused message stays, shows the reason, and can be sent again or removed', async () => {
  const server = await Server.start({ 'limits.messages_burst': 2, 'limits.messages_per_minute': 30 });
  try {
    const alice = await new Person(await wire.page(), server).logIn(phone());
    const robot = users(1)[0];
    const conversation = await server.conversation(robot, alice.user);
    await alice.reload();
    await alice.open('User');
    for (const text of ['one', 'two', 'three', 'four']) await alice.say(text);
    const { page } = alice;
    await eventually(() => page.locator('.message.failed .text').allTextContents(), ['three', 'four']);
    assert.match(await alice.status(), /not sent: .*30 messages a minute/);
    await picture(page, 'refused');
    await page.locator('.message.failed').last().getByRole('button', { name: 'Remove' }).click();
    await alice.hears('one', 'two', 'three');
    await eventually(async () => {
      const again = page.locator('.message.failed').getByRole('button', { name: 'Try again' });
      if (await again.count()) await again.click({ timeout: 500 }).catch(() => {});
      return (await server.history(robot, conversation)).map(({ content }) => content);
    }, ['one', 'two', 'three']);
    await eventually(() => page.locator('.message.failed').count(), 0);
    await alice.hears('one', 'two', 'three');
  } finally {
    await server.stop();
  }
});

it('renews its tokens and stays connected beyond their expiry', async () => {
  const server = await Server.start({ 'auth.access_ttl': '4s' });
  try {
    const alice = await new Person(await wire.page(), server).logIn(phone());
    const first = alice.token;
    const states = await alice.page.evaluateHandle(() => {
      const seen = [];
      const state = document.getElementById('state');
      new MutationObserver(() => seen.push(state.textContent)).observe(state, { childList: true, characterData: true, subtree: true });
      return seen;
    });
    let renewals = 0;
    for (let token = first; renewals < 3; renewals += 1) {
      const before = token;
      await alice.page.waitForFunction((old) => JSON.parse(sessionStorage.getItem('tidings.login')).access !== old, before);
      ({ access: token } = await rememberLogin(alice.page));
    }
    const robot = users(1)[0];
    await server.post(robot, await server.conversation(robot, alice.user), 'still there?');
    await alice.open('still there?');
    await alice.hears('still there?');
    assert.deepEqual(await states.jsonValue(), [], 'the connection was never lost');
  } finally {
    await server.stop();
  }
});

it('logs out, and notices a logout elsewhere', async () => {
  const alice = await someone();
  const { refresh } = await rememberLogin(alice.page);
  await alice.page.getByRole('button', { name: 'Log out' }).click();
  await alice.page.getByLabel('Phone number').waitFor();
  assert.equal(await alice.page.evaluate(() => sessionStorage.length), 0);
  await eventually(async () => (await wire.server.rest(undefined, 'POST', '/auth/refresh', { refreshToken: refresh })).status, 401);

  const bob = await someone();
  bob.page.allowed = /status of 401/;
  const login = await rememberLogin(bob.page);
  await wire.server.expect(204, undefined, 'POST', '/auth/logout', { refreshToken: login.refresh });
  await bob.page.getByRole('alert').filter({ hasText: 'You are logged out' }).waitFor();
  assert.equal(await bob.page.evaluate(() => sessionStorage.length), 0);
});

it('shows the frames on the wire, and no token in them', async () => {
  const server = await Server.start({ 'auth.access_ttl': '4s' });
  try {
    const alice = await new Person(await wire.page(), server).logIn(phone());
    const { page } = alice;
    await page.getByRole('button', { name: 'Frame log' }).click();
    const tokens = [];
    for (let renewals = 0; renewals < 2; renewals += 1) {
      const login = await rememberLogin(page);
      tokens.push(login.access, login.refresh);
      await page.waitForFunction((old) => JSON.parse(sessionStorage.getItem('tidings.login')).access !== old, login.access);
    }
    await alice.begin(users(1));
    await alice.say('seen on the wire');
    await eventually(async () => /MESSAGE\n[^]*seen on the wire/.test(await alice.frames()), true);
    const frames = await alice.frames();
    for (const part of ['CONNECT\n', 'Authorization:Bearer [token]', 'CONNECTED\n', 'SUBSCRIBE\n', 'SEND\n', '/app/auth/refresh', '{"token":"[token]"}', 'RECEIPT\n', 'POST /auth/refresh']) {
      assert.ok(frames.includes(part), part);
    }
    for (const token of tokens) assert.ok(!(await page.content()).includes(token.split('.').at(-1)));
    assert.doesNotMatch(await page.content(), /eyJ[\w-]{8,}/);
    await page.getByLabel('Pause').check();
    const count = await page.locator('#log li').count();
    await alice.say('unseen');
    await eventually(() => alice.status(), 'sent');
    assert.equal(await page.locator('#log li').count(), count);
    await picture(page, 'frames');
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await page.locator('#log li').count(), 0);
    await page.getByRole('button', { name: 'Close the frame log' }).click();
    assert.ok(await page.getByRole('region', { name: 'Frame log' }).isHidden());
  } finally {
    await server.stop();
  }
});

for (const transport of ['WebSocket', 'SockJS websocket', 'SockJS xhr-streaming', 'SockJS eventsource', 'SockJS xhr-polling']) {
  it(`talks over ${transport}`, async () => {
    const { alice, robot, conversation } = await withRobot();
    const { page } = alice;
    page.allowed = NETWORK;
    await page.getByRole('button', { name: 'Frame log' }).click();
    if (transport !== 'WebSocket') await page.getByLabel('Transport').selectOption(transport);
    await alice.isState('connected');
    const texts = ['100 % sure', 'a "quoted" \\ word\nand a line', 'U+2028 \u2028 and an owl 🦉', '%0A %25'];
    for (const text of texts) await wire.server.post(robot, conversation, text);
    await alice.hears(...texts);
    await alice.say('heard you');
    await alice.hears(...texts, 'heard you');
    await eventually(() => alice.status(), 'sent');
    assert.equal(/^a\["/m.test(await alice.frames()), transport !== 'WebSocket', 'SockJS packets');
    assert.doesNotMatch(await alice.frames(), /eyJ[\w-]{8,}/);

    await wire.server.end('SIGTERM');
    await alice.isState('reconnecting');
    await wire.server.launch();
    await alice.isState('connected');
    await wire.server.post(robot, conversation, 'here again');
    await alice.hears(...texts, 'heard you', 'here again');
    await alice.reload();
    assert.equal(await page.getByLabel('Transport').locator('option:checked').textContent(), transport, 'the choice is kept');
  });
}

it('can be used with a keyboard alone', async () => {
  const bob = await someone();
  const alice = await person();
  const { page } = alice;
  await alice.visit();
  const keys = async (...pressed) => {
    for (const key of pressed) await page.keyboard.press(key);
  };
  const tabTo = async (name) => {
    for (let tabs = 0; tabs < 20; tabs += 1) {
      const focused = await page.locator(':focus').evaluateAll(([element]) => element?.ariaLabel || element?.textContent);
      if (focused === name) return;
      await keys('Tab');
    }
    assert.fail(`no way to ${name} by Tab`);
  };
  await page.keyboard.type(phone());
  await keys('Enter');
  await page.getByLabel('One-time code').and(page.locator(':focus')).waitFor();
  await page.keyboard.type('000000');
  await keys('Enter');
  await alice.isState('connected');
  await rememberLogin(page);
  await tabTo('New');
  await keys('Enter');
  await page.keyboard.type(String(bob.user));
  await keys('Enter');
  await page.getByRole('textbox', { name: 'Message' }).and(page.locator(':focus')).waitFor();
  await page.keyboard.type('typed');
  await keys('Enter');
  // Its first message brings a conversation to the others.
  await bob.open('typed');
  await bob.hears('typed');
});

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Checks the current page for accessibility. */
async function check(page, state) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
  const found = violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${state}: ${id} ${target} ${failureSummary}`));
  assert.deepEqual(found, []);
}

for (const [size, options] of Object.entries({
  wide: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
  narrow: { viewport: { width: 320, height: 568 }, hasTouch: true, isMobile: true },
})) {
  for (const colorScheme of ['light', 'dark']) {
    it(`fits a ${size} window, ${colorScheme}`, async () => {
      const name = (step) => `${size}-${colorScheme}-${step}`;
      const fits = async () => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
      const look = async (step) => {
        await fits();
        await check(page, name(step));
        await picture(page, name(step));
      };
      const alice = await person({ ...options, colorScheme });
      const { page } = alice;
      await alice.visit();
      await look('login');
      await alice.logIn(phone());
      await look('empty');
      const [robot, other, third] = users(3);
      const direct = await wire.server.conversation(robot, alice.user);
      const { id: group } = await wire.server.expect(201, mint(other), 'POST', '/conversations', { title: 'Allotment, Saturday', participants: [alice.user, third] });
      await wire.server.post(robot, direct, 'Are you coming tonight? We meet at the station at half past seven and walk from there.');
      await wire.server.post(robot, direct, 'https://example.com/' + 'a-long-word-without-a-break'.repeat(6));
      await wire.server.post(other, group, 'Who brings the spades?');
      await wire.server.post(third, group, 'I do. And a rake');
      await wire.server.post(other, group, 'Good');
      await eventually(() => page.locator('.badge').count(), 2);
      await look('list');
      await alice.open('example.com');
      await alice.say('Yes! Shall I bring anything?');
      await eventually(() => alice.status(), 'sent');
      await look('conversation');
      if (size !== 'wide') await page.getByRole('button', { name: 'Back' }).click();
      await alice.open('Allotment');
      await alice.say('I have two');
      await eventually(() => alice.status(), 'sent');
      await look('group');
      if (size !== 'wide') await page.getByRole('button', { name: 'Back' }).click();
      await page.getByRole('button', { name: 'New', exact: true }).click();
      await look('dialog');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Frame log' }).click();
      await look('log');
    });
  }
}

it("another user's page shows nothing of the previous user", async () => {
  const { alice, robot, conversation } = await withRobot();
  const { page } = alice;
  await wire.server.post(robot, conversation, 'between us');
  await alice.hears('between us');
  await page.getByRole('button', { name: 'Log out' }).click();
  await alice.logIn(phone());
  assert.doesNotMatch(await page.content(), /between us/);
  assert.equal(await page.getByRole('navigation').getByRole('listitem').count(), 0);
  remember(alice.token);
});

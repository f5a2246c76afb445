// Debian's Chromium under playwright-core, for one test file: each user has a context of their own, and any warning or
// error on a page's console is a failure.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import path from 'node:path';

import { chromium } from 'playwright-core';

import { Server, out, remember } from '../../js/support/server.js';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';

// Nothing that a browser does by itself may leave the machine.
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** The browser's own errors about a missing server, or one that no longer holds a kept connection. */
export const NETWORK = /net::ERR_((CONNECTION|SOCKET)_\w+|INTERNET_DISCONNECTED|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|NETWORK_CHANGED)|WebSocket connection to .* failed/;

const TIMEOUT_MS = 15_000;

/** A page whose complaints are kept. `allowed` is a pattern for what a test provokes. */
function watch(page, complaints) {
  page.setDefaultTimeout(TIMEOUT_MS);
  page.allowed = undefined;
  const complain = (text) => page.allowed?.test(text) || complaints.push(text);
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    // Without queries, which hold tokens.
    complain(`${message.text()} (${message.location().url})`.replace(/\?[^)'" ]*/g, '?...'));
  });
  page.on('pageerror', (error) => complain(String(error)));
  return page;
}

/**
 * Starts a server with `settings` and a browser before the file's tests. `it` adds a test with a time limit; `page` opens
 * a page in a context of its own, `tab` another in the same context.
 */
export function suite(settings = {}, browserArguments = () => []) {
  const context = { server: undefined, browser: undefined };
  const complaints = [];
  const open = new Set();
  before(async () => {
    context.server = await Server.start(settings);
    const args = [...ARGUMENTS, ...browserArguments(context.server)];
    context.browser = await chromium.launch({ executablePath: EXECUTABLE, args });
  });
  after(async () => {
    await context.browser?.close();
    await context.server?.stop();
  });
  context.page = async (options = {}) => {
    const made = await context.browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
    open.add(made);
    return watch(await made.newPage(), complaints);
  };
  context.tab = async (page) => watch(await page.context().newPage(), complaints);
  afterEach(async () => {
    for (const made of open) await made.close();
    open.clear();
    assert.deepEqual(complaints.splice(0), [], 'complaints of the browser');
  });
  context.it = (name, body) => test(name, { timeout: 120_000 }, body);
  return context;
}

/** Keeps a screenshot for inspection. */
export function picture(page, name) {
  return page.screenshot({ path: path.join(out, `page-${name}.png`) });
}

/** Waits until `read()` equals `expect`; on failure both are shown. `read` is called repeatedly. */
export async function eventually(read, expect, what = '') {
  const until = Date.now() + TIMEOUT_MS;
  for (;;) {
    const found = await read();
    try {
      assert.deepEqual(found, expect, what);
      return;
    } catch (fault) {
      if (Date.now() > until) throw fault;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Tokens that a page holds must be in no log. */
export async function rememberLogin(page) {
  const login = await page.evaluate(() => JSON.parse(sessionStorage.getItem('tidings.login')));
  for (const token of [login.access, login.refresh]) if (token) remember(token);
  return login;
}

// Open each page in light and dark, wide and narrow: run axe-core, look for sideways scrolling, and count what a page without
// scripts says on the console or asks the network for. Prints the findings as JSON.
import { chromium } from 'playwright-core';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
const [, , browserPath, axePath, ...pages] = process.argv;
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const found = [];
for (const page of pages) for (const scheme of ['light', 'dark']) for (const width of [1280, 400]) {
  const context = await browser.newContext({ bypassCSP: true, colorScheme: scheme, viewport: { width, height: 900 } });
  const tab = await context.newPage();
  await tab.goto(pathToFileURL(page).href);
  await tab.evaluate(readFileSync(axePath, 'utf8'));
  const result = await tab.evaluate(async () => await axe.run(document, { resultTypes: ['violations'] }));
  for (const v of result.violations) found.push({ page, scheme, width, id: v.id, impact: v.impact, nodes: v.nodes.length, first: v.nodes[0].html.slice(0, 200), why: v.nodes[0].failureSummary.slice(0,300) });
  const wide = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wide > 0) found.push({ page, scheme, width, id: 'horizontal-scroll', impact: 'serious', nodes: wide });
  await context.close();
  const strict = await browser.newContext({ javaScriptEnabled: false, viewport: { width, height: 900 } });
  const quiet = await strict.newPage();
  const said = [];
  quiet.on('console', (m) => said.push(m.text()));
  quiet.on('request', (r) => { if (!r.url().startsWith('data:') && !r.url().startsWith('file:')) said.push(r.url()); });
  await quiet.goto(pathToFileURL(page).href);
  for (const text of said) found.push({ page, scheme, width, id: 'console', impact: 'serious', why: text });
  await strict.close();
}
await browser.close();
console.log(JSON.stringify(found));
